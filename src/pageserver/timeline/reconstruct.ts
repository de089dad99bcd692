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
import { decodeRecord } from "../../postgres/wal/decode-record.ts";
import { WalRecord } from "../../postgres/wal/record.ts";
import type { StoredValue } from "../layers/delta-layer.ts";
import type { Pacer } from "../layers/pacer.ts";

const PAGE_SIZE = 8192;
/** Records between two looks at the clock. */
const PAUSE_EVERY = 16;

export interface ReconstructInput {
  readonly key: Key;
  /** Newest first; the last needs nothing below it unless there is `base`. */
  readonly values: readonly StoredValue[];
  /** From an image layer; shared memory, not written to. */
  readonly base: Uint8Array | null;
}

export class Reconstructor {
  readonly #pgVersion: PgMajor;
  /** Reused: decoding and redo of one record happen without waiting in between. */
  readonly #record = new WalRecord();
  readonly #scratch = new Uint8Array(PAGE_SIZE);

  constructor(pgVersion: PgMajor) {
    this.#pgVersion = pgVersion;
  }

  /**
   * The result is the caller's own memory.
   * @throws StrataError fix-input `unsupported-redo`; corrupt `bad-value`, `wal-bad-record` and what redo throws, with
   * key and LSN
   */
  async reconstruct(input: ReconstructInput, pacer: Pacer): Promise<Uint8Array> {
    const { values, base } = input;
    let page: Uint8Array | null = base === null ? null : base.slice();
    for (let i = values.length - 1; i >= 0; i--) {
      page = this.#applied(input.key, values[i], page);
      if (i % PAUSE_EVERY !== PAUSE_EVERY - 1) continue;
      const pause = pacer.pause();
      if (pause !== undefined) await pause;
    }
    if (page === null) throw new InvariantError("a page is reconstructed from something");
    return page;
  }

  /** The same for few values, without waiting. The result is good until the next call, and not to be kept. */
  reconstructNow({ key, values, base }: ReconstructInput): Uint8Array {
    if (base !== null && values.length === 0) return base;
    let page: Uint8Array | null = base === null ? null : this.#inScratch(base);
    for (let i = values.length - 1; i >= 0; i--) page = this.#applied(key, values[i], page);
    if (page === null) throw new InvariantError("a page is reconstructed from something");
    return page;
  }

  #inScratch(base: Uint8Array): Uint8Array {
    if (base.length !== PAGE_SIZE) return base.slice();
    this.#scratch.set(base);
    return this.#scratch;
  }

  #applied(key: Key, stored: StoredValue, page: Uint8Array | null): Uint8Array {
    try {
      return this.#apply(key, stored, page);
    } catch (error) {
      throw located(error, key, stored.lsn);
    }
  }

  #apply(key: Key, stored: StoredValue, page: Uint8Array | null): Uint8Array {
    const record = this.#record;
    const value = decodeValue(stored.bytes);
    if (value.kind === "image") return value.bytes.slice();
    if (page === null && !willInit(value)) throw new InvariantError(`the oldest record of ${keyToHex(key)} needs a page below it`);
    if (value.kind === "neon") return applyNeonRecord(key, value.record, page ?? new Uint8Array(PAGE_SIZE), stored.lsn);
    const target = page ?? new Uint8Array(PAGE_SIZE);
    // The layer's checksum covers the record: its own has been checked when it came.
    decodeRecord(value.record, this.#pgVersion, record, { endLsn: stored.lsn, checkCrc: false });
    redoRecord(target, record, blockIdOf(record, key), stored.lsn);
    return target;
  }
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
