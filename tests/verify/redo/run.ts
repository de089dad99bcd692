/**
 * One check of redo against a real server: start it, let it write WAL, read that WAL with our decoder, replay it.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Lsn, parseLsn } from "../../../src/kit/lsn.ts";
import { FORK_MAIN, FORK_VISIBILITY_MAP, RMGR } from "../../../src/postgres/wal/constants.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { type StockMajor, StockPostgres } from "../../support/stock-postgres.ts";
import { type Script, Sessions, runScript } from "./corpus.ts";
import { type RecordKind, UNREACHED, recordKinds } from "./record-kinds.ts";
import { Replay } from "./replay.ts";
import { type RelationFile, runSoakRound } from "./soak.ts";
import { type StatusComparison, StatusPages } from "./status-pages.ts";

const SEGMENT_SIZE = 16 * 1024 * 1024;
const SOAK_ROUND_MS = 10_000;

export interface RedoCheckOptions {
  readonly major: StockMajor;
  readonly scripts: readonly Script[];
  /** Random SQL for this long after the scripts; 0: none. */
  readonly soakMs: number;
  readonly seed: number;
  readonly log: (line: string) => void;
  /** Sees each record before our redo does, and may damage it: to show that the check finds what it should. */
  readonly tamper?: (record: WalRecord) => void;
}

export interface RedoCheckResult {
  readonly replay: Replay;
  readonly status: StatusComparison;
  readonly kinds: readonly RecordKind[];
  /** Kinds seen at least once. */
  readonly seen: number;
  /** `manager.kind/block` not seen, with the reason where there is one. */
  readonly notSeen: readonly { readonly what: string; readonly reason: string | null }[];
}

const CONF = [
  "wal_consistency_checking = 'all'", "full_page_writes = on", "wal_level = logical", "wal_log_hints = on", "shared_buffers = 2MB",
  "autovacuum = off", "max_wal_size = 8GB", "min_wal_size = 256MB", "wal_keep_size = 4GB", "checkpoint_timeout = 1h", "synchronous_commit = off",
  "max_prepared_transactions = 4", "max_connections = 30", "bgwriter_delay = 10s", "wal_writer_delay = 10ms", "track_commit_timestamp = on",
  "max_parallel_workers_per_gather = 0", "max_parallel_maintenance_workers = 0", "log_min_messages = error",
];

/** Reads the log of a running server piece by piece. */
class WalFollower {
  readonly #server: StockPostgres;
  readonly #decoder: WalStreamDecoder;
  readonly #record = new WalRecord();
  readonly #each: (record: WalRecord) => void;
  #position: Lsn;

  constructor(server: StockPostgres, start: Lsn, each: (record: WalRecord) => void) {
    this.#server = server;
    this.#each = each;
    this.#position = start;
    this.#decoder = new WalStreamDecoder(start, server.major, SEGMENT_SIZE);
  }

  async replayTo(end: Lsn): Promise<void> {
    while (this.#position < end) {
      const segment = Math.floor(this.#position / SEGMENT_SIZE);
      const high = Math.floor(segment / 256).toString(16).toUpperCase().padStart(8, "0");
      const name = `00000001${high}${(segment % 256).toString(16).toUpperCase().padStart(8, "0")}`;
      const bytes = await readFile(join(this.#server.dataDirectory, "pg_wal", name));
      const from = this.#position % SEGMENT_SIZE;
      const stop = Math.min(SEGMENT_SIZE, from + (end - this.#position));
      this.#decoder.feed(new Uint8Array(bytes.buffer, bytes.byteOffset + from, stop - from), this.#position);
      while (this.#decoder.next(this.#record)) this.#each(this.#record);
      this.#position += stop - from;
    }
  }
}

async function checkpoint(sessions: Sessions): Promise<Lsn> {
  await sessions.run("watch", "CHECKPOINT");
  const [row] = await sessions.query("watch", "SELECT redo_lsn::text AS lsn FROM pg_control_checkpoint()");
  return parseLsn(String(row.lsn));
}

async function insertLsn(sessions: Sessions): Promise<Lsn> {
  await sessions.run("watch", "SELECT pg_switch_wal()");
  await sessions.run("watch", "CHECKPOINT");
  const [row] = await sessions.query("watch", "SELECT pg_current_wal_flush_lsn()::text AS lsn");
  return parseLsn(String(row.lsn));
}

interface Running {
  readonly server: StockPostgres;
  readonly sessions: Sessions;
  readonly follower: WalFollower;
  readonly replay: Replay;
  readonly check: RedoCheckOptions;
  readonly socket: string;
}

/** Each script's log is replayed while the server works on the next one. */
async function runScripts({ sessions, follower, replay, check, socket }: Running): Promise<void> {
  let replayed: Promise<void> = Promise.resolve();
  for (const script of check.scripts) {
    const startMs = performance.now();
    const own = new Sessions(socket);
    await runScript(own, script, check.major).finally(() => own.close());
    const end = await insertLsn(sessions);
    check.log(`${script.name}: ${Math.round(performance.now() - startMs)} ms`);
    await replayed;
    replayed = follower.replayTo(end).then(() => replay.forgetPages());
  }
  await replayed;
}

const RMID_OF: Readonly<Record<string, number>> = {
  heap: RMGR.HEAP, btree: RMGR.BTREE, hash: RMGR.HASH, gin: RMGR.GIN, gist: RMGR.GIST, spgist: RMGR.SPGIST, brin: RMGR.BRIN,
};
const DEFAULT_TABLESPACE = 1663;

/** After the checkpoint at the round's end the files have what the log says. */
async function compareFile(server: StockPostgres, replay: Replay, { path, accessMethod }: RelationFile): Promise<void> {
  const rmid = RMID_OF[accessMethod];
  if (rmid === undefined) throw new Error(`no masking rule for access method ${accessMethod}`);
  const name = path.replace("base", String(DEFAULT_TABLESPACE));
  const forks: [number, string][] = [[FORK_MAIN, ""], [FORK_VISIBILITY_MAP, "_vm"]];
  for (const [fork, suffix] of forks) {
    const file = await readFile(join(server.dataDirectory, path + suffix)).catch(() => new Uint8Array(0));
    replay.compareFile({ name, fork, rmid }, file);
  }
}

async function runSoak({ server, sessions, follower, replay, check, socket }: Running): Promise<void> {
  const deadline = performance.now() + check.soakMs;
  for (let round = 0; performance.now() < deadline; round++) {
    const seed = check.seed + round;
    const files = await runSoakRound({ socket, major: check.major, seed, untilMs: Math.min(deadline, performance.now() + SOAK_ROUND_MS) });
    await follower.replayTo(await insertLsn(sessions));
    for (const file of files) await compareFile(server, replay, file);
    replay.forgetPages();
    check.log(`round ${round}, seed ${seed}: ${replay.comparedCount} pages compared, ${replay.differenceCount} differences`);
  }
}

/** All that is done with a server that runs. */
async function check(server: StockPostgres, options: RedoCheckOptions, replay: Replay): Promise<StatusComparison> {
  const sessions = new Sessions(server.directory);
  const start = await checkpoint(sessions);
  const status = new StatusPages(server);
  const follower = new WalFollower(server, start, (record) => {
    options.tamper?.(record);
    replay.apply(record);
    status.apply(record);
  });
  const running = { server, sessions, follower, replay, check: options, socket: server.directory };
  await runScripts(running);
  await runSoak(running);
  await follower.replayTo(await insertLsn(sessions));
  await sessions.close();
  return status.compare();
}

/** Starts a server, runs scripts and random SQL on it, and compares every page. @throws Error when the SQL or the decoding fails */
export async function checkRedo(options: RedoCheckOptions): Promise<RedoCheckResult> {
  const server = await StockPostgres.create({ major: options.major, conf: CONF });
  const replay = new Replay();
  const interrupted = (signal: NodeJS.Signals): void => {
    options.log(`redo pg${options.major}: no result, ${signal} after ${replay.comparedCount} pages compared, ${replay.differenceCount} differences`);
    void server.remove().finally(() => process.exit(signal === "SIGINT" ? 130 : 143));
  };
  process.once("SIGTERM", interrupted).once("SIGINT", interrupted);
  try {
    await server.start();
    const status = await check(server, options, replay);
    return { replay, status, ...summarize(options.major, replay) };
  } finally {
    process.off("SIGTERM", interrupted).off("SIGINT", interrupted);
    await server.remove();
  }
}

function summarize(major: number, replay: Replay): Pick<RedoCheckResult, "kinds" | "seen" | "notSeen"> {
  const kinds = recordKinds(major);
  const rows = [...replay.coverage.values()];
  const notSeen: { what: string; reason: string | null }[] = [];
  let seen = 0;
  for (const kind of kinds) {
    const ofKind = rows.filter((row) => row.rmid === kind.rmid && row.operation === kind.info);
    if (ofKind.length > 0) seen++;
    for (const block of kind.blocks) {
      if (ofKind.some((row) => row.blockId === block)) continue;
      const name = `${kind.manager}.${kind.name}`;
      notSeen.push({ what: `${name}/${block}`, reason: UNREACHED[`${name}/${block}`] ?? UNREACHED[name] ?? null });
    }
  }
  return { kinds, seen, notSeen };
}
