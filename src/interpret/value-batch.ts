/**
 * Values at keys and LSNs on their way into a timeline: typed columns over one arena of encoded values, so that ingest makes no
 * object a value. Made once and used again: `clear` keeps the memory.
 *
 *   const offset = batch.appendRecord(record, willInit);
 *   batch.addPage(ref, offset, lsn);   // any number of keys may share one encoded value
 *
 * Invariants: LSNs rise; a key comes once at an LSN; `fields` has six numbers an entry, in the order of the key's bytes.
 */
import { copyBytes } from "../kit/copy.ts";
import type { Lsn } from "../kit/lsn.ts";
import type { Key } from "../keyspace/key.ts";
import {
  decodeValue, encodedValueSize, encodeNeonRecord, encodeValueInto, type LittleEndianTime, ONE_ABORTED_SIZE, ONE_COMMITTED_SIZE,
  POSTGRES_HEADER_SIZE, writeRecordHeader, writeXactEnd,
} from "./value-codec.ts";
import { type KeyValue, type Value, valueWillInit } from "./value.ts";

export const KEY_FIELDS = 6;
const FIRST_ENTRIES = 64;
const FIRST_BYTES = 16 * 1024;
/** An arena or column that one huge record made larger than this is not kept. */
const KEPT_BYTES = 16 * 1024 * 1024;
/** What an entry takes besides its bytes, for those who count. */
export const ENTRY_OVERHEAD_BYTES = 48;

/** A page's place, as block references and relations have it. */
export interface PagePlace {
  readonly spcOid: number;
  readonly dbOid: number;
  readonly relNumber: number;
  readonly fork: number;
}

export class ValueBatch {
  count = 0;
  byteLength = 0;
  bytes = new Uint8Array(FIRST_BYTES);
  fields = new Uint32Array(FIRST_ENTRIES * KEY_FIELDS);
  lsns = new Float64Array(FIRST_ENTRIES);
  /** Of the encoded values in `bytes`. */
  offsets = new Uint32Array(FIRST_ENTRIES);
  lengths = new Uint32Array(FIRST_ENTRIES);
  willInit = new Uint8Array(FIRST_ENTRIES);
  /** Of the value that `appendRecord` made last. */
  #recordLength = 0;

  static of(values: readonly KeyValue[]): ValueBatch {
    const batch = new ValueBatch();
    for (const { key, lsn, value } of values) batch.add(key, lsn, value);
    return batch;
  }

  /** Bytes held until the batch is handed over, about. */
  get sizeBytes(): number {
    return this.byteLength + this.count * ENTRY_OVERHEAD_BYTES;
  }

  clear(): void {
    this.count = 0;
    this.byteLength = 0;
    if (this.bytes.length > KEPT_BYTES) this.bytes = new Uint8Array(FIRST_BYTES);
    if (this.fields.length * 4 > KEPT_BYTES) this.#makeColumns(FIRST_ENTRIES);
  }

  /** Returns the entry's number. */
  add(key: Key, lsn: Lsn, value: Value): number {
    const at = this.#entry(lsn);
    this.#setKey(at, key);
    this.setValue(at, value);
    return at;
  }

  /** Gives an entry another value; the old one's bytes stay behind. */
  setValue(at: number, value: Value): void {
    const encoded = value.kind === "neon" ? encodeNeonRecord(value.record) : null;
    const length = encoded === null ? encodedValueSize(value) : encoded.length;
    const offset = this.#reserve(length);
    if (encoded === null) encodeValueInto(value, this.bytes, offset);
    else encoded.copyInto(this.bytes, offset);
    this.offsets[at] = offset;
    this.lengths[at] = length;
    this.willInit[at] = valueWillInit(value) ? 1 : 0;
  }

  /** Takes entries out: for the few that have to wait for the next batch. */
  remove(gone: ReadonlySet<number>): void {
    let kept = 0;
    for (let at = 0; at < this.count; at++) {
      if (gone.has(at)) continue;
      this.fields.copyWithin(kept * KEY_FIELDS, at * KEY_FIELDS, (at + 1) * KEY_FIELDS);
      this.lsns[kept] = this.lsns[at];
      this.offsets[kept] = this.offsets[at];
      this.lengths[kept] = this.lengths[at];
      this.willInit[kept] = this.willInit[at];
      kept++;
    }
    this.count = kept;
  }

  /** Stores a WAL record as a value, copied from where it was decoded; returns its offset for `addPage`. */
  appendRecord(record: { readonly bytes: Uint8Array; readonly start: number; readonly totalLength: number }, willInit: boolean): number {
    const { totalLength } = record;
    const offset = this.#reserve(POSTGRES_HEADER_SIZE + totalLength);
    this.#recordLength = POSTGRES_HEADER_SIZE + totalLength;
    writeRecordHeader(this.bytes, offset, totalLength, willInit);
    copyBytes(record.bytes, record.start, this.bytes, offset + POSTGRES_HEADER_SIZE, totalLength);
    return offset;
  }

  /**
   * A relation page whose value is the record that `appendRecord` stored last, in one of its forms.
   * Positional parameters on purpose: called for every block of the log.
   */
  addPage(place: PagePlace, block: number, lsn: Lsn, offset: number, willInit: boolean): void {
    const at = this.#entry(lsn);
    const f = at * KEY_FIELDS;
    this.fields[f] = 0;
    this.fields[f + 1] = place.spcOid;
    this.fields[f + 2] = place.dbOid;
    this.fields[f + 3] = place.relNumber;
    this.fields[f + 4] = place.fork;
    this.fields[f + 5] = block;
    this.offsets[at] = offset;
    this.lengths[at] = this.#recordLength;
    this.willInit[at] = willInit ? 1 : 0;
  }

  /**
   * The end of a transaction on a page of the commit log, by that page's key. `time` is null for an abort.
   * Positional parameters on purpose: called for every transaction of the log.
   */
  addXactEnd(page: Key, lsn: Lsn, xid: number, time: LittleEndianTime | null): void {
    const at = this.#entry(lsn);
    this.#setKey(at, page);
    const length = time === null ? ONE_ABORTED_SIZE : ONE_COMMITTED_SIZE;
    const offset = this.#reserve(length);
    writeXactEnd(this.bytes, offset, xid, time);
    this.offsets[at] = offset;
    this.lengths[at] = length;
    this.willInit[at] = 0;
  }

  #setKey(at: number, key: Key): void {
    const f = at * KEY_FIELDS;
    this.fields[f] = key.field1;
    this.fields[f + 1] = key.field2;
    this.fields[f + 2] = key.field3;
    this.fields[f + 3] = key.field4;
    this.fields[f + 4] = key.field5;
    this.fields[f + 5] = key.field6;
  }

  #entry(lsn: Lsn): number {
    const at = this.count++;
    if (at === this.lsns.length) this.#growColumns();
    this.lsns[at] = lsn;
    return at;
  }

  #reserve(length: number): number {
    const offset = this.byteLength;
    const end = offset + length;
    if (end > this.bytes.length) {
      const grown = new Uint8Array(Math.max(end, this.bytes.length * 2));
      copyBytes(this.bytes, 0, grown, 0, offset);
      this.bytes = grown;
    }
    this.byteLength = end;
    return offset;
  }

  #growColumns(): void {
    const { fields, lsns, offsets, lengths, willInit } = this;
    this.#makeColumns(lsns.length * 2);
    this.fields.set(fields);
    this.lsns.set(lsns);
    this.offsets.set(offsets);
    this.lengths.set(lengths);
    this.willInit.set(willInit);
  }

  #makeColumns(entries: number): void {
    this.fields = new Uint32Array(entries * KEY_FIELDS);
    this.lsns = new Float64Array(entries);
    this.offsets = new Uint32Array(entries);
    this.lengths = new Uint32Array(entries);
    this.willInit = new Uint8Array(entries);
  }

  /** The entries as objects, copied: for stores that have no use for columns. */
  toValues(): KeyValue[] {
    return Array.from({ length: this.count }, (_, at) => {
      const [field1, field2, field3, field4, field5, field6] = this.fields.subarray(at * KEY_FIELDS, (at + 1) * KEY_FIELDS);
      const bytes = this.bytes.slice(this.offsets[at], this.offsets[at] + this.lengths[at]);
      return { key: { field1, field2, field3, field4, field5, field6 }, lsn: this.lsns[at], value: decodeValue(bytes) };
    });
  }
}
