/**
 * A read replica: an unmodified standby that follows the timeline's safekeepers.
 *
 * Start: commit position L of the most advanced safekeeper → last checkpoint before L in the WAL → base backup at L → files of
 * a standby → PostgreSQL, which streams from the checkpoint's redo position on and opens when it has replayed L. It takes part
 * in no election and settles nothing: a primary may be writing.
 */
import { utf8 } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { freePort } from "../../platform/free-port.ts";
import { type PostgresProcess, startPostgres, stopStalePostgres } from "../../platform/postgres-process.ts";
import { makeSocketDirectory, type SocketDirectory } from "../../platform/socket-directory.ts";
import type { ControlFile } from "../../postgres/control-file/control-file.ts";
import { fetchBaseBackup } from "../base-backup/fetch.ts";
import type { Compute, StartContext } from "../compute-context.ts";
import { DEFAULT_SHUTDOWN_TIMEOUT_MS, DEFAULT_SUPERUSER } from "../config.ts";
import type { ComputeHttp } from "../http/server.ts";
import { choosePgData, type PgData } from "../pgdata.ts";
import { PostgresLog } from "../postgres-process/postgres-log.ts";
import { writeConfiguration } from "../postgres-process/settings.ts";
import type { TimelineConnection } from "../proposer/safekeeper-client.ts";
import { addressText, askDonors, type Donor, type DonorOptions, donorReader, primaryConninfo } from "./donors.ts";
import { DonorWatch } from "./donor-watch.ts";
import { findLastCheckpoint } from "./last-checkpoint.ts";
import { forcedReplicaSettings, replicaSettings } from "./settings.ts";
import { standbyControlFile, type StandbyStart, writeStandbyFiles } from "./standby-files.ts";

export interface ReplicaContext extends StartContext {
  readonly http: ComputeHttp;
  readonly lock: { release(): Promise<void> };
}

const AUTHORITIES_FILE = "strata_ca.crt";
const RETRY_MS = 300;
const DONOR_TIMEOUT_MS = 60_000;
/** It has the WAL since the last checkpoint to replay before it opens. */
const START_TIMEOUT_MS = 600_000;
/** PostgreSQL's words when a standby becomes a primary, which nobody here can follow. */
const PROMOTED = "selected new timeline ID";

/** @throws StrataError unavailable `no-donor`, `no-checkpoint`, `postgres-start-failed`; fix-input `postgres-version-mismatch`, `ca-file-missing` */
export async function startReplica(context: ReplicaContext): Promise<Compute> {
  const { config, state, platform } = context;
  const donors = await state.step("find_donor", () => reachableDonors(context));
  const pgdata = await choosePgData(config.dataDirectory, context.user, context.log);
  await stopStalePostgres(pgdata.path);
  await platform.files.removeTree(pgdata.path);
  await platform.files.makeDirectory(pgdata.path);
  const prepared = await prepare(context, donors, pgdata.path);
  const running = await state.step("start_postgres", () => run(context, { pgdata, donors, ...prepared }));
  return new RunningReplica(context, { ...running, ...prepared, pgdata });
}

function timelineOf({ config, tls }: StartContext): TimelineConnection {
  const { tenantId, timelineId, authToken } = config;
  return { tenantId, timelineId, tls, ...(authToken === undefined ? {} : { authToken }) };
}

function donorOptions(context: StartContext): DonorOptions {
  const { platform, log, config, signal } = context;
  return { platform, log, timeline: timelineOf(context), safekeepers: config.safekeepers, signal };
}

/** The most advanced first. Until a majority answers, the most advanced may be among the silent: it is waited for a little. */
async function reachableDonors(context: ReplicaContext): Promise<Donor[]> {
  const { clock } = context.platform;
  const majority = Math.floor(context.config.safekeepers.length / 2) + 1;
  const deadline = clock.monotonicMs() + (context.config.settleTimeoutMs ?? DONOR_TIMEOUT_MS);
  for (;;) {
    const donors = await askDonors(donorOptions(context));
    if (donors.length >= majority) return donors;
    if (clock.monotonicMs() > deadline) throw new StrataError("unavailable", "no-donor", `${donors.length} of ${context.config.safekeepers.length} safekeepers have WAL of the timeline and answer`);
    await clock.sleep(RETRY_MS, context.signal);
  }
}

interface Prepared {
  readonly start: StandbyStart;
  readonly fetchedBytes: number;
}

async function prepare(context: ReplicaContext, donors: readonly Donor[], directory: string): Promise<Prepared> {
  const { config, platform, state, log, signal } = context;
  const [donor] = donors;
  const backupLsn = donor.commitLsn;
  const backup = await state.step("base_backup", () =>
    fetchBaseBackup({ platform, pageserver: config.pageserver, ...timelineOf(context), lsn: backupLsn, directory, signal, replica: true }));
  const { controlFile } = backup;
  if (controlFile.version !== config.pgVersion) {
    throw new StrataError("fix-input", "postgres-version-mismatch", `the timeline is of PostgreSQL ${controlFile.version}, this replica is told to run ${config.pgVersion}`);
  }
  const geometry = { version: controlFile.version, segmentSize: controlFile.segmentSize };
  const last = await state.step("find_checkpoint", () => findLastCheckpoint(donorReader(donorOptions(context), donor), geometry, backupLsn));
  const start = { controlFile, last, backupLsn };
  await writeStandbyFiles(platform.files, directory, start);
  log.info("standby prepared", { backupLsn: lsnToString(backupLsn), redoLsn: lsnToString(last.checkpoint.redo), donor: addressText(donor.address), fetchedBytes: backup.fetchedBytes });
  return { start, fetchedBytes: backup.fetchedBytes };
}

interface Running {
  readonly postgres: PostgresProcess;
  readonly socket: SocketDirectory;
  readonly watch: DonorWatch;
  readonly promoted: Promise<StrataError>;
}

async function run(context: ReplicaContext, from: Prepared & { readonly pgdata: PgData; readonly donors: readonly Donor[] }): Promise<Running> {
  const { config, platform, binaries, user, log } = context;
  const directory = from.pgdata.path;
  const control: ControlFile = standbyControlFile(from.start);
  const authoritiesPath = await writeAuthorities(context, directory);
  const configure = (addresses: readonly Donor["address"][]): Promise<void> =>
    writeConfiguration(platform.files, directory, { ...replicaSettings(config.settings ?? {}, control), primary_conninfo: primaryConninfo(timelineOf(context), addresses, authoritiesPath) });
  await configure(from.donors.map(({ address }) => address));
  const postgresLog = await PostgresLog.create(platform.files, `${config.dataDirectory}/postgres.log`);
  const socket = await makeSocketDirectory(platform, config.dataDirectory, user);
  const promoted = Promise.withResolvers<StrataError>();
  const onLogLine = (line: string): void => {
    postgresLog.add(line);
    if (line.includes(PROMOTED)) promoted.resolve(new StrataError("conflict", "promoted", "the replica was promoted: nobody keeps what it writes, so it ends; start a primary instead"));
  };
  try {
    const postgres = await startPostgres({
      binaries, user, dataDirectory: directory, listenAddresses: config.listenHost ?? "127.0.0.1", port: config.pgPort === 0 ? freePort() : config.pgPort,
      socketDirectory: socket.path, settings: { ...forcedReplicaSettings(), unix_socket_permissions: "0700" }, onLogLine, startTimeoutMs: START_TIMEOUT_MS,
    });
    void postgres.exited.then(() => postgresLog.close());
    const server = { socketPath: `${socket.path}/.s.PGSQL.${postgres.port}`, user: config.superuser ?? DEFAULT_SUPERUSER };
    const watch = new DonorWatch({ ...donorOptions(context), log, server, follow: async (addresses) => (await configure(addresses), postgres.reload()) });
    watch.start();
    return { postgres, socket, watch, promoted: promoted.promise };
  } catch (error) {
    await postgresLog.close();
    await socket.remove();
    throw error;
  }
}

/** PostgreSQL's own libpq connects to the safekeepers, as a user who need not be able to read the operator's file. Null: nothing is checked. */
async function writeAuthorities({ platform, tls }: ReplicaContext, directory: string): Promise<string | null> {
  if (tls?.verify !== true) return null;
  if (tls.caPem === undefined) throw new StrataError("fix-input", "ca-file-missing", "a replica with --ssl-mode verify-full needs --ssl-ca-file: PostgreSQL does not know the system's certificate authorities");
  const path = `${directory}/${AUTHORITIES_FILE}`;
  const file = await platform.files.open(path, "truncate");
  await file.write(utf8(tls.caPem), 0);
  await file.close();
  return path;
}

class RunningReplica implements Compute {
  readonly #context: ReplicaContext;
  readonly #running: Running & Prepared & { readonly pgdata: PgData };
  readonly #ended = Promise.withResolvers<StrataError | null>();
  #ending: Promise<void> | null = null;

  constructor(context: ReplicaContext, running: Running & Prepared & { readonly pgdata: PgData }) {
    this.#context = context;
    this.#running = running;
    const { state, log, config, http } = context;
    state.running(null);
    log.info("replica is ready", { pgPort: running.postgres.port, httpPort: http.port, startLsn: lsnToString(this.startLsn), tenantId: config.tenantId, timelineId: config.timelineId });
    void running.promoted.then((error) => this.#end("immediate", error));
    void running.postgres.exited.then(({ exitCode, signal }) => {
      const message = `PostgreSQL ended by itself (${signal ?? `exit code ${exitCode}`}): ${running.postgres.logTail().slice(-5).join(" | ")}`;
      return this.#end("immediate", new StrataError("unavailable", "postgres-ended", message));
    });
  }

  get pgPort(): number {
    return this.#running.postgres.port;
  }
  get httpPort(): number {
    return this.#context.http.port;
  }
  get socketDirectory(): string {
    return this.#running.socket.path;
  }
  get superuser(): string {
    return this.#context.config.superuser ?? DEFAULT_SUPERUSER;
  }
  get fetchedBytes(): number {
    return this.#running.fetchedBytes;
  }
  get startLsn(): Lsn {
    return this.#running.start.backupLsn;
  }
  get ended(): Promise<StrataError | null> {
    return this.#ended.promise;
  }
  postgresLog(): readonly string[] {
    return this.#running.postgres.logTail();
  }
  stop(): Promise<void> {
    return this.#end("fast", null);
  }
  kill(): Promise<void> {
    return this.#end("immediate", null);
  }

  #end(mode: "fast" | "immediate", reason: StrataError | null): Promise<void> {
    this.#ending ??= this.#shutDown(mode, reason);
    return this.#ending;
  }

  async #shutDown(mode: "fast" | "immediate", reason: StrataError | null): Promise<void> {
    const { state, log, http, lock, config, platform } = this.#context;
    const { postgres, socket, watch, pgdata } = this.#running;
    if (reason !== null) log.error("replica ends", { error: reason });
    state.stopping();
    await watch.stop();
    await postgres.stop(mode, config.shutdownTimeoutMs ?? DEFAULT_SHUTDOWN_TIMEOUT_MS);
    await socket.remove();
    if (pgdata.temporary) await platform.files.removeTree(pgdata.path);
    state.stopped(reason);
    await http.close();
    await lock.release();
    this.#ended.resolve(reason);
  }
}
