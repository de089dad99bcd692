/**
 * Records and pages of real workloads, as raw material for attacks: a few of every kind of record there is, each with
 * the page it was applied to.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Lsn, parseLsn } from "../../../src/kit/lsn.ts";
import { PAGE_SIZE } from "../../../src/postgres/page/page-layout.ts";
import { redoRecord } from "../../../src/postgres/redo/redo.ts";
import { WalRecord, copyRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { type StockMajor, StockPostgres } from "../../support/stock-postgres.ts";
import { type Script, Sessions, runScript } from "../redo/corpus.ts";

const SEGMENT_SIZE = 16 * 1024 * 1024;
const SAMPLES_A_KIND = 6;
const MAX_RECORD_BYTES = 96 * 1024;
const WAL_WINDOW_BYTES = 1024 * 1024;

export interface Sample {
  readonly major: StockMajor;
  readonly kind: string;
  /** The whole record. */
  readonly record: Uint8Array;
  /** -1 for a record without blocks. */
  readonly blockId: number;
  readonly endLsn: Lsn;
  /** The page before the record. */
  readonly page: Uint8Array;
}

/** A stretch of the log as it was written. */
export interface WalWindow {
  readonly major: StockMajor;
  readonly start: Lsn;
  readonly bytes: Uint8Array;
}

export interface Material {
  readonly samples: Sample[];
  readonly windows: WalWindow[];
}

const CONF = [
  "full_page_writes = on", "wal_level = logical", "wal_log_hints = on", "autovacuum = off", "max_wal_size = 8GB", "wal_keep_size = 4GB",
  "checkpoint_timeout = 1h", "synchronous_commit = off", "max_prepared_transactions = 4", "max_connections = 30", "track_commit_timestamp = on",
  "max_parallel_workers_per_gather = 0", "max_parallel_maintenance_workers = 0", "log_min_messages = error",
];
const EMPTY_PAGE = new Uint8Array(PAGE_SIZE);

/** Compressions a server may know; one it does not is left out. */
function compressions(major: StockMajor): readonly string[] {
  return major === 14 ? ["off", "on"] : ["off", "pglz", "lz4", "zstd"];
}

class Collector {
  readonly samples: Sample[] = [];
  readonly #major: StockMajor;
  readonly #pages = new Map<string, Uint8Array>();
  readonly #kinds = new Map<string, { first: number; seen: number }>();

  constructor(major: StockMajor) {
    this.#major = major;
  }

  take(record: WalRecord): void {
    if (record.totalLength > MAX_RECORD_BYTES) return;
    if (record.blockCount === 0) this.#offer(record, -1, EMPTY_PAGE);
    for (let id = 0; id < record.blockCount; id++) {
      const ref = record.blocks[id];
      if (!ref.inUse) continue;
      const name = `${ref.spcOid}/${ref.dbOid}/${ref.relNumber}/${ref.fork}/${ref.blockNumber}`;
      const page = this.#pages.get(name) ?? new Uint8Array(PAGE_SIZE);
      if (!this.#pages.has(name) && !ref.willInit && !(ref.hasImage && ref.applyImage)) continue;
      this.#offer(record, id, page);
      this.#pages.set(name, page);
      redoRecord(page, record, id, record.endLsn);
    }
  }

  /** The first of a kind, and later ones here and there. */
  #offer(record: WalRecord, blockId: number, page: Uint8Array): void {
    const ref = blockId < 0 ? null : record.blocks[blockId];
    const image = ref?.hasImage === true ? ref.compression : "no image";
    const kind = `pg${this.#major} rmgr ${record.rmid} info ${(record.info & 0xf0).toString(16)} block ${blockId} ${image}`;
    const known = this.#kinds.get(kind);
    if (known === undefined) {
      this.#kinds.set(kind, { first: this.samples.length, seen: 1 });
      for (let i = 0; i < SAMPLES_A_KIND; i++) this.samples.push(this.#sample(record, blockId, { kind, page }));
      return;
    }
    known.seen++;
    if ((known.seen & (known.seen - 1)) !== 0 && known.seen > SAMPLES_A_KIND) return;
    this.samples[known.first + (known.seen % SAMPLES_A_KIND)] = this.#sample(record, blockId, { kind, page });
  }

  #sample(record: WalRecord, blockId: number, at: { kind: string; page: Uint8Array }): Sample {
    return { major: this.#major, kind: at.kind, record: copyRecord(record), blockId, endLsn: record.endLsn, page: at.page.slice() };
  }
}

async function readWal(server: StockPostgres, range: { start: Lsn; end: Lsn }, each: (lsn: Lsn, bytes: Uint8Array) => void): Promise<void> {
  for (let at = range.start; at < range.end; ) {
    const segment = Math.floor(at / SEGMENT_SIZE);
    const name = `00000001${hex8(Math.floor(segment / 256))}${hex8(segment % 256)}`;
    const bytes = await readFile(join(server.dataDirectory, "pg_wal", name));
    const from = at % SEGMENT_SIZE;
    const stop = Math.min(SEGMENT_SIZE, from + (range.end - at));
    each(at, new Uint8Array(bytes.buffer, bytes.byteOffset + from, stop - from));
    at += stop - from;
  }
}

function hex8(value: number): string {
  return value.toString(16).toUpperCase().padStart(8, "0");
}

/** Runs each script under the next compression, from a checkpoint on, so that pages come with their images first. */
async function runScripts(sessions: Sessions, server: StockPostgres, scripts: readonly Script[]): Promise<void> {
  const known = compressions(server.major);
  let next = 0;
  for (const script of scripts) {
    const compression = known[next++ % known.length];
    // A server built without the method keeps what it has.
    await sessions.run("watch", `ALTER SYSTEM SET wal_compression = '${compression}'`).catch(() => null);
    await sessions.run("watch", "SELECT pg_reload_conf()");
    await sessions.run("watch", "CHECKPOINT");
    const own = new Sessions(server.directory);
    await runScript(own, script, server.major).finally(() => own.close());
  }
}

/** Runs the scripts on a server of this major and collects what it logged. @throws Error when SQL, decoding or redo fails */
export async function collectMaterial(major: StockMajor, scripts: readonly Script[]): Promise<Material> {
  const server = await StockPostgres.create({ major, conf: CONF });
  const collector = new Collector(major);
  const windows: WalWindow[] = [];
  try {
    await server.start();
    const sessions = new Sessions(server.directory);
    await sessions.run("watch", "CHECKPOINT");
    const [first] = await sessions.query("watch", "SELECT redo_lsn::text AS lsn FROM pg_control_checkpoint()");
    await runScripts(sessions, server, scripts);
    await sessions.run("watch", "SELECT pg_switch_wal()");
    await sessions.run("watch", "CHECKPOINT");
    const [last] = await sessions.query("watch", "SELECT pg_current_wal_flush_lsn()::text AS lsn");
    await sessions.close();
    const range = { start: parseLsn(String(first.lsn)), end: parseLsn(String(last.lsn)) };
    const decoder = new WalStreamDecoder(range.start, major, SEGMENT_SIZE);
    const record = new WalRecord();
    await readWal(server, range, (lsn, bytes) => {
      if (lsn % SEGMENT_SIZE !== 0 || windows.length === 0) windows.push({ major, start: lsn, bytes: bytes.slice(0, WAL_WINDOW_BYTES) });
      decoder.feed(bytes, lsn);
      while (decoder.next(record)) collector.take(record);
    });
  } finally {
    await server.remove();
  }
  return { samples: collector.samples, windows };
}
