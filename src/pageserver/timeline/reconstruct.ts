/**
 * A page from what the layers hold of it: an image, or a record that needs none, and the records after it applied in
 * turn. PostgreSQL's records go through redo, the peer's own through applyNeonRecord. The LSN a record is stored at is
 * its end, which redo stamps on the page.
 */
import { InvariantError, StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { applyNeonRecord } from "../../interpret/apply-neon-record.ts";
import { decodeValue } from "../../interpret/value-codec.ts";
import type { Value } from "../../interpret/value.ts";
import { type Key, keyToHex } from "../../keyspace/key.ts";
import { keyToRelBlock } from "../../keyspace/mapping.ts";
import { redoRecord } from "../../postgres/redo/redo.ts";
import type { PgMajor } from "../../postgres/versions/major.ts";
import { decodeInPlace, decodeRecord } from "../../postgres/wal/decode-record.ts";
import { WalRecord } from "../../postgres/wal/record.ts";
import type { StoredValue } from "../layers/delta-layer.ts";
import type { ReadCounts } from "../counts/read-counts.ts";
import type { Clock } from "../../platform/clock.ts";
import type { FoundValues } from "../layers/found-values.ts";
import type { Pacer } from "../layers/pacer.ts";

const PAGE_SIZE = 8192;
/** Kind, number, will-init flag, length of the record. */
const POSTGRES_HEADER_SIZE = 17;
/** Records between two looks at the clock. */
const PAUSE_EVERY = 16;

/** A page under way; nobody waits while it is used. */
const scratch = new Uint8Array(PAGE_SIZE);
/** The record under way, of all timelines: decoding and redo of one happen without waiting in between. */
const record = new WalRecord();

export interface ReconstructInput {
  readonly key: Key;
  /** Newest first; the last needs nothing below it unless there is `base`. */
  readonly values: readonly StoredValue[];
  /** From an image layer; shared memory, not written to. */
  readonly base: Uint8Array | null;
}

/** What is told of redo. */
export interface RedoWatch {
  readonly counts: Pick<ReadCounts, "reconstructed">;
  readonly clock: Clock;
}

export class Reconstructor {
  /** Of the last `reconstructNow`. */
  tookMs = 0;
  readonly #pgVersion: PgMajor;
  readonly #watch: RedoWatch | null;
  /** Records applied since they were last looked at, and their bytes. */
  #records = 0;
  #recordBytes = 0;

  constructor(pgVersion: PgMajor, watch: RedoWatch | null = null) {
    this.#pgVersion = pgVersion;
    this.#watch = watch;
  }

  /**
   * The result is the caller's own memory.
   * @throws StrataError fix-input `unsupported-redo`; corrupt `bad-value`, `wal-bad-record` and what redo throws, with
   * key and LSN
   */
  async reconstruct(input: ReconstructInput, pacer: Pacer, spent?: { redoMs: number }): Promise<Uint8Array> {
    const { values, base } = input;
    const startMs = this.#nowMs();
    let pausedMs = 0;
    let records = 0;
    let recordBytes = 0;
    let page: Uint8Array | null = base === null ? null : base.slice();
    for (let i = values.length - 1; i >= 0; i--) {
      this.#records = 0;
      this.#recordBytes = 0;
      page = this.#applied(input.key, values[i], page);
      records += this.#records;
      recordBytes += this.#recordBytes;
      if (i % PAUSE_EVERY !== PAUSE_EVERY - 1) continue;
      const pause = pacer.pause();
      if (pause === undefined) continue;
      pausedMs -= this.#nowMs();
      await pause;
      pausedMs += this.#nowMs();
    }
    if (page === null) throw new InvariantError("a page is reconstructed from something");
    const tookMs = this.#nowMs() - startMs - pausedMs;
    if (spent !== undefined) spent.redoMs += tookMs;
    this.#watch?.counts.reconstructed(records, recordBytes, tookMs);
    return page;
  }

  #nowMs(): number {
    return this.#watch === null ? 0 : this.#watch.clock.monotonicMs();
  }

  /**
   * The same for what a read without waiting has found. The result is good until the next call, and not to be written or kept.
   * Errors as of `reconstruct`.
   */
  reconstructNow(key: Key, found: FoundValues, base: Uint8Array | null): Uint8Array {
    this.tookMs = 0;
    if (base !== null && found.count === 0) {
      this.#watch?.counts.reconstructed(0, 0, 0);
      return base;
    }
    const startMs = this.#nowMs();
    this.#records = 0;
    this.#recordBytes = 0;
    let page: Uint8Array | null = null;
    if (base !== null) {
      page = base.length === PAGE_SIZE ? scratch : new Uint8Array(base.length);
      page.set(base);
    }
    for (let i = found.count - 1; i >= 0; i--) page = this.#applyFound(key, found, { index: i, page });
    if (page === null) throw new InvariantError("a page is reconstructed from something");
    this.tookMs = this.#nowMs() - startMs;
    this.#watch?.counts.reconstructed(this.#records, this.#recordBytes, this.tookMs);
    return page;
  }

  #applyFound(key: Key, found: FoundValues, { index, page }: { index: number; page: Uint8Array | null }): Uint8Array {
    const lsn = found.lsns[index];
    const start = found.starts[index];
    const length = found.lengths[index];
    const recordLength = postgresRecordLength(found.bytes, start, length);
    if (recordLength < 0 || (page === null && found.willInit[index] === 0)) {
      return this.#applied(key, { lsn, willInit: found.willInit[index] === 1, bytes: found.bytes.slice(start, start + length) }, page);
    }
    this.#records++;
    this.#recordBytes += recordLength;
    const target = page ?? scratch;
    if (page === null) target.fill(0);
    const recordStart = start + length - recordLength;
    // Views of the record alone: what a damaged one would read beyond it is refused.
    record.bytes = new Uint8Array(found.buffer, recordStart, recordLength);
    record.view = new DataView(found.buffer, recordStart, recordLength);
    record.version = this.#pgVersion;
    record.start = 0;
    record.totalLength = recordLength;
    record.lsn = 0;
    record.endLsn = lsn;
    try {
      decodeInPlace(record, false);
      redoRecord(target, record, blockIdOf(record, key), lsn);
    } catch (error) {
      throw located(error, key, lsn);
    }
    return target;
  }

  #applied(key: Key, stored: StoredValue, page: Uint8Array | null): Uint8Array {
    try {
      return this.#apply(key, stored, page);
    } catch (error) {
      throw located(error, key, stored.lsn);
    }
  }

  #apply(key: Key, stored: StoredValue, page: Uint8Array | null): Uint8Array {
    const value = decodeValue(stored.bytes);
    if (value.kind === "image") return value.bytes.slice();
    this.#records++;
    this.#recordBytes += stored.bytes.length;
    if (page === null && !willInit(value)) throw new InvariantError(`the oldest record of ${keyToHex(key)} needs a page below it`);
    if (value.kind === "neon") return applyNeonRecord(key, value.record, page ?? new Uint8Array(PAGE_SIZE), stored.lsn);
    const target = page ?? new Uint8Array(PAGE_SIZE);
    // The layer's checksum covers the record: its own has been checked when it came.
    decodeRecord(value.record, this.#pgVersion, record, { endLsn: stored.lsn, checkCrc: false });
    redoRecord(target, record, blockIdOf(record, key), stored.lsn);
    return target;
  }
}

/** Length of the record in an encoded value, whose end it is; -1 for any other value (see interpret/value-codec.ts). */
function postgresRecordLength(bytes: Uint8Array, start: number, length: number): number {
  if (length < POSTGRES_HEADER_SIZE || !isU32(bytes, start, 1) || !isU32(bytes, start + 4, 0)) return -1;
  const recordLength = length - POSTGRES_HEADER_SIZE;
  return bytes[start + 8] <= 1 && isU32(bytes, start + 9, 0) && isU32(bytes, start + 13, recordLength) ? recordLength : -1;
}

function isU32(bytes: Uint8Array, at: number, value: number): boolean {
  return (((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0) === value;
}

function willInit(value: Value): boolean {
  return value.kind === "postgres" ? value.willInit : value.kind === "image";
}

/** @throws StrataError corrupt `record-without-block` */
function blockIdOf(record: WalRecord, key: Key): number {
  const { rel, block } = keyToRelBlock(key);
  for (let id = 0; id < record.blockCount; id++) {
    const ref = record.blocks[id];
    if (ref.inUse && ref.blockNumber === block && ref.fork === rel.fork && ref.relNumber === rel.relNumber && ref.dbOid === rel.dbOid && ref.spcOid === rel.spcOid) return id;
  }
  throw new StrataError("corrupt", "record-without-block", `record of manager ${record.rmid} has no reference to block ${block} of relation ${rel.spcOid}/${rel.dbOid}/${rel.relNumber} fork ${rel.fork}`);
}

function located(error: unknown, key: Key, lsn: Lsn): unknown {
  if (!(error instanceof StrataError)) return error;
  return new StrataError(error.kind, error.code, `key ${keyToHex(key)}, record ending at ${lsnToString(lsn)}: ${error.message}`, {
    // Its words are in ours already.
    cause: error.cause,
    details: { ...error.details, key: keyToHex(key), lsn: lsnToString(lsn) },
  });
}
