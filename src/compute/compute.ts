/**
 * The compute: an unmodified PostgreSQL that owns no durable state.
 *
 * Start: settle the log → base backup at exactly that LSN → starter segment and pg_control → PostgreSQL and proposer side
 * by side → elected exactly there, or start over. Stop: PostgreSQL first (it waits until the quorum has its shutdown
 * checkpoint), then the proposer. See README.md.
 */
import { Cancelled, StrataError, isStrataError } from "../kit/errors.ts";
import { type Lsn, lsnToString } from "../kit/lsn.ts";
import { loadAuthorities } from "../http/certificate.ts";
import { pgTls } from "../wire/client-tls.ts";
import type { Logger } from "../observability/log.ts";
import { Metrics } from "../observability/metrics.ts";
import { freePort } from "../platform/free-port.ts";
import type { Platform } from "../platform/platform.ts";
import { findPostgresBinaries, resolvePostgresUser } from "../platform/postgres-binaries.ts";
import { type PostgresProcess, startPostgres, stopStalePostgres } from "../platform/postgres-process.ts";
import { fetchBaseBackup } from "./base-backup/fetch.ts";
import { type Start, writeStarter } from "./base-backup/starter.ts";
import type { Compute, ComputeOptions, StartContext } from "./compute-context.ts";
import { type ComputeConfig, DEFAULT_SHUTDOWN_TIMEOUT_MS, DEFAULT_SUPERUSER } from "./config.ts";
import { registerComputeMetrics } from "./metrics.ts";
import { type ComputeHttp, serveComputeHttp } from "./http/server.ts";
import { choosePgData, type PgData } from "./pgdata.ts";
import { SizeQuota } from "./postgres-process/size-quota.ts";
import { forcedSettings, writeConfiguration } from "./postgres-process/settings.ts";
import { PostgresLog } from "./postgres-process/postgres-log.ts";
import { type SocketDirectory, makeSocketDirectory } from "../platform/socket-directory.ts";
import type { ProposerIdentity } from "./proposer/core-types.ts";
import { NO_LAG_LIMITS } from "./proposer/pageserver-positions.ts";
import { Proposer } from "./proposer/proposer.ts";
import { settleLog } from "./proposer/settle-log.ts";
import { startReplica } from "./replica/replica.ts";
import { ComputeState } from "./state.ts";

/** A log that moves under a starting compute moves because another one is starting too: one of them has to win. */
const MAX_ATTEMPTS = 5;
const ELECTION_TIMEOUT_MS = 30_000;
const RETRY_MS = 500;
const WAL_SEGMENT_SIZE_BYTES = 16 * 1024 * 1024;

/**
 * @throws StrataError fix-input `bad-certificate-authority`; conflict `directory-locked`, `log-moved-on` after five attempts; not-found
 *  `postgres-binaries-missing`; unavailable `settle-timeout`, `postgres-start-failed`; what the pageserver answered
 */
export async function startCompute(config: ComputeConfig, options: ComputeOptions): Promise<Compute> {
  const { platform, log } = options;
  const binaries = await findPostgresBinaries({ major: config.pgVersion, ...(config.pgBinDirectory === undefined ? {} : { binDirectory: config.pgBinDirectory }) });
  const user = await resolvePostgresUser(config.osUser);
  await platform.files.makeDirectory(config.dataDirectory);
  const lock = await platform.files.lock(`${config.dataDirectory}/compute.lock`);
  const metrics = options.metrics ?? new Metrics();
  const state = new ComputeState(metrics, platform.clock);
  registerComputeMetrics(metrics, state);
  let http: ComputeHttp | null = null;
  try {
    http = serveComputeHttp({ config, state, metrics, platform, log, version: options.version ?? "unknown" });
    const tls = pgTls(config.sslMode ?? "disable", await loadAuthorities(platform.files, config.sslCaFile));
    const context = { config, platform, log, binaries, user, state, tls, signal: options.signal ?? new AbortController().signal };
    if (config.mode === "replica") return await startReplica({ ...context, http, lock });
    const running = await new ComputeStarter(context).startUntilElected();
    return new RunningCompute({ config, platform, log, state, running, http, lock });
  } catch (error) {
    state.failed(error);
    await http?.close();
    await lock.release();
    throw error;
  }
}

interface Running {
  readonly postgres: PostgresProcess;
  readonly proposer: Proposer;
  readonly socket: SocketDirectory;
  readonly start: Start;
  readonly directory: PgData;
  readonly fetchedBytes: number;
}

class ComputeStarter {
  readonly #context: StartContext;

  constructor(context: StartContext) {
    this.#context = context;
  }

  async startUntilElected(): Promise<Running> {
    const { platform, log, signal } = this.#context;
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#attempt();
      } catch (error) {
        const movedOn = isStrataError(error, "log-moved-on") || isStrataError(error, "proposer-superseded");
        if (!movedOn || attempt >= MAX_ATTEMPTS) throw error;
        log.info("the log moved on while starting: starting over", { attempt, error });
        await platform.clock.sleep(RETRY_MS + platform.random.below(RETRY_MS), signal);
      }
    }
  }

  async #attempt(): Promise<Running> {
    const { config, platform, log, state } = this.#context;
    const pgdata = await choosePgData(config.dataDirectory, this.#context.user, log);
    const directory = pgdata.path;
    await stopStalePostgres(directory);
    const settledLsn = await state.step("settle_log", () => this.#settle());
    await platform.files.removeTree(directory);
    await platform.files.makeDirectory(directory);
    const backup = await state.step("base_backup", () => this.#fetch(directory, settledLsn));
    log.info("base backup unpacked", { lsn: lsnToString(backup.controlFile.checkpoint.redo), files: backup.files, sizeBytes: backup.sizeBytes, fetchedBytes: backup.fetchedBytes });
    if (backup.controlFile.version !== config.pgVersion) {
      throw new StrataError("fix-input", "postgres-version-mismatch", `the timeline is of PostgreSQL ${backup.controlFile.version}, this compute is told to run ${config.pgVersion}`);
    }
    const start = await writeStarter(platform.files, directory, { backup, settledLsn });
    await writeConfiguration(platform.files, directory, config.settings ?? {});
    const identity = this.#identity(backup.controlFile.systemId, backup.controlFile.segmentSize);
    return await state.step("start_postgres", async () => ({ ...(await this.#run(directory, identity, start)), directory: pgdata, fetchedBytes: backup.fetchedBytes }));
  }

  #identity(systemId: bigint, walSegmentSizeBytes: number): ProposerIdentity {
    const { config, binaries } = this.#context;
    return { tenantId: config.tenantId, timelineId: config.timelineId, systemId, pgVersion: binaries.versionNum, walSegmentSizeBytes };
  }

  async #settle(): Promise<Lsn> {
    const { config, platform, log, tls, signal } = this.#context;
    return await settleLog({
      identity: this.#identity(0n, WAL_SEGMENT_SIZE_BYTES), safekeepers: config.safekeepers, platform, log, tls, signal,
      ...(config.authToken === undefined ? {} : { authToken: config.authToken }),
      ...(config.settleTimeoutMs === undefined ? {} : { timeoutMs: config.settleTimeoutMs }),
    });
  }

  async #fetch(directory: string, lsn: Lsn): Promise<Awaited<ReturnType<typeof fetchBaseBackup>>> {
    const { config, platform, tls, signal } = this.#context;
    const { tenantId, timelineId, pageserver, authToken } = config;
    return await fetchBaseBackup({ platform, pageserver, tenantId, timelineId, lsn, directory, tls, signal, ...(authToken === undefined ? {} : { authToken }) });
  }

  #sizeQuota(dataDirectory: string, reload: () => void): SizeQuota | null {
    const { config: { maxClusterSizeBytes: limitBytes }, platform: { files }, log, state } = this.#context;
    const quota = limitBytes === undefined ? null : new SizeQuota({ files, dataDirectory, limitBytes, log, reload });
    state.quota = quota;
    return quota;
  }

  /** PostgreSQL and proposer, started together; both are gone again when this throws. */
  async #run(directory: string, identity: ProposerIdentity, start: Start): Promise<Omit<Running, "fetchedBytes" | "directory">> {
    const { config, platform, log, binaries, user, tls, signal } = this.#context;
    const postgresLog = await PostgresLog.create(platform.files, `${config.dataDirectory}/postgres.log`);
    const socket = await makeSocketDirectory(platform, config.dataDirectory, user);
    const port = config.pgPort === 0 ? freePort() : config.pgPort;
    let postgres: PostgresProcess | null = null;
    const quota = this.#sizeQuota(directory, () => postgres?.reload());
    const proposer = new Proposer({
      identity, safekeepers: config.safekeepers, platform, log, tls, startLsn: start.startLsn, walDirectory: `${directory}/pg_wal`,
      lagLimits: config.lagLimits ?? NO_LAG_LIMITS, onPageserverNews: ({ sizeBytes }) => sizeBytes === null ? undefined : quota?.sized(sizeBytes),
      server: { socketPath: `${socket.path}/.s.PGSQL.${port}`, user: config.superuser ?? DEFAULT_SUPERUSER },
      ...(config.authToken === undefined ? {} : { authToken: config.authToken }),
    });
    try {
      proposer.start();
      proposer.elected.catch(() => {});
      postgres = await startPostgres({
        binaries, user, dataDirectory: directory, listenAddresses: config.listenHost ?? "127.0.0.1", port, socketDirectory: socket.path,
        settings: { ...forcedSettings({ user: config.settings ?? {} }), unix_socket_permissions: "0700" },
        onLogLine: (line) => postgresLog.add(line),
      });
      void postgres.exited.then(() => postgresLog.close());
      proposer.stream();
      await electedInTime(proposer, platform, signal);
      return { postgres, proposer, socket, start };
    } catch (error) {
      await (postgres === null ? postgresLog.close() : postgres.stop("immediate"));
      await proposer.close();
      await socket.remove();
      throw error;
    }
  }
}

async function electedInTime(proposer: Proposer, platform: Platform, signal: AbortSignal): Promise<void> {
  const timeout = Promise.withResolvers<never>();
  const timer = platform.clock.after(ELECTION_TIMEOUT_MS, () => {
    timeout.reject(new StrataError("unavailable", "no-quorum", `no majority of safekeepers elected this compute within ${ELECTION_TIMEOUT_MS} ms`));
  });
  const abort = (): void => timeout.reject(new Cancelled("the compute's start was broken off"));
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort, { once: true });
  try {
    await Promise.race([proposer.elected, timeout.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
    timer.cancel();
  }
}

interface RunningOptions {
  readonly config: ComputeConfig;
  readonly platform: Platform;
  readonly log: Logger;
  readonly state: ComputeState;
  readonly running: Running;
  readonly http: ComputeHttp;
  readonly lock: { release(): Promise<void> };
}

class RunningCompute implements Compute {
  readonly #options: RunningOptions;
  readonly #ended = Promise.withResolvers<StrataError | null>();
  #ending: Promise<void> | null = null;

  constructor(options: RunningOptions) {
    this.#options = options;
    const { running, state, log, config } = options;
    state.running(() => running.proposer.status());
    log.info("compute is ready", { pgPort: running.postgres.port, httpPort: options.http.port, startLsn: lsnToString(running.start.startLsn), tenantId: config.tenantId, timelineId: config.timelineId });
    void running.proposer.failed.then((error) => this.#end("immediate", error));
    void running.postgres.exited.then(({ exitCode, signal }) => {
      const message = `PostgreSQL ended by itself (${signal ?? `exit code ${exitCode}`}): ${running.postgres.logTail().slice(-5).join(" | ")}`;
      return this.#end("immediate", new StrataError("unavailable", "postgres-ended", message));
    });
  }

  get pgPort(): number {
    return this.#options.running.postgres.port;
  }
  get httpPort(): number {
    return this.#options.http.port;
  }
  get socketDirectory(): string {
    return this.#options.running.socket.path;
  }
  get superuser(): string {
    return this.#options.config.superuser ?? DEFAULT_SUPERUSER;
  }
  get fetchedBytes(): number {
    return this.#options.running.fetchedBytes;
  }
  get startLsn(): Lsn {
    return this.#options.running.start.startLsn;
  }
  get ended(): Promise<StrataError | null> {
    return this.#ended.promise;
  }
  postgresLog(): readonly string[] {
    return this.#options.running.postgres.logTail();
  }

  async stop(): Promise<void> {
    await this.#end("fast", null);
  }

  async kill(): Promise<void> {
    await this.#end("immediate", null);
  }

  #end(mode: "fast" | "immediate", reason: StrataError | null): Promise<void> {
    this.#ending ??= this.#shutDown(mode, reason);
    return this.#ending;
  }

  async #shutDown(mode: "fast" | "immediate", reason: StrataError | null): Promise<void> {
    const { running, state, log, http, lock, config, platform } = this.#options;
    const { postgres, proposer, socket, directory } = running;
    if (reason !== null) log.error("compute ends", { error: reason });
    state.stopping();
    const timeoutMs = config.shutdownTimeoutMs ?? DEFAULT_SHUTDOWN_TIMEOUT_MS;
    proposer.liftLagLimits();
    // A fast stop ends when the walsender has had everything confirmed, the shutdown checkpoint included.
    const exit = await postgres.stop(mode, timeoutMs);
    if (mode === "fast") this.#reportStop(exit.exitCode === 0 && proposer.commitLsn >= proposer.flushLsn, timeoutMs);
    await proposer.close();
    await socket.remove();
    if (directory.temporary) await platform.files.removeTree(directory.path);
    state.stopped(reason);
    await http.close();
    await lock.release();
    this.#ended.resolve(reason);
  }

  #reportStop(clean: boolean, timeoutMs: number): void {
    const { log, running } = this.#options;
    const positions = { commitLsn: lsnToString(running.proposer.commitLsn), flushLsn: lsnToString(running.proposer.flushLsn) };
    if (clean) log.info("compute stopped: a quorum has all of its WAL", positions);
    else log.warn("compute stopped before a quorum had all of its WAL: what was not acknowledged is lost", { ...positions, timeoutMs });
  }
}
