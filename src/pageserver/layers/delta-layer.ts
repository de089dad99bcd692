/**
 * Reading delta layers. The index maps key (18 bytes) and LSN (8, big-endian) to the place of the encoded value:
 * offset × 2, plus 1 when the value needs nothing below it. Source: the peer's storage_layer/delta_layer (BlobRef).
 */
import { dataViewOf } from "../../kit/bytes.ts";
import { type Lsn, lsnFromHalves, lsnHigh, lsnLow } from "../../kit/lsn.ts";
import { compareKeys, decodeKey, encodeKeyInto, type Key, KEY_MIN, KEY_SIZE } from "../../keyspace/key.ts";
import { type BtreeNode, visitBtree, visitRangeNow } from "./disk-btree.ts";
import type { Pacer } from "../../platform/pacer.ts";
import { FOUND_VALUES_MAX, type FoundValues } from "./found-values.ts";
import type { LayerFile } from "./layer-file.ts";

export const DELTA_KEY_SIZE = KEY_SIZE + 8;
/** Most values are records of a few hundred bytes. */
const GUESS_BYTES = 512;

export function encodeDeltaKeyInto(key: Key, lsn: Lsn, view: DataView): void {
  encodeKeyInto(key, view, 0);
  view.setUint32(KEY_SIZE, lsnHigh(lsn));
  view.setUint32(KEY_SIZE + 4, lsnLow(lsn));
}

function deltaKey(key: Key, lsn: Lsn): Uint8Array {
  const bytes = new Uint8Array(DELTA_KEY_SIZE);
  encodeDeltaKeyInto(key, lsn, dataViewOf(bytes));
  return bytes;
}

/** What is wanted of one key: values at LSNs in [floor, end). */
export interface KeyQuery {
  readonly key: Key;
  readonly lsnFloor: Lsn;
  readonly lsnEnd: Lsn;
}

export interface StoredValue {
  readonly lsn: Lsn;
  readonly willInit: boolean;
  /** Encoded (see interpret/value-codec.ts); may be a view of shared memory. */
  readonly bytes: Uint8Array;
}

interface Place {
  readonly lsn: Lsn;
  readonly willInit: boolean;
  readonly offset: number;
  readonly query: number;
}

/** Newest first, down to the first that needs nothing below; an array for each query. */
export async function readDelta(file: LayerFile, queries: readonly KeyQuery[]): Promise<StoredValue[][]> {
  const places: Place[] = [];
  for (let i = 0; i < queries.length; i++) await findPlaces(file, queries[i], { query: i, places });
  places.sort((a, b) => a.offset - b.offset);
  const values = await file.readBlobs(places.map((place) => place.offset), GUESS_BYTES);
  const found: StoredValue[][] = queries.map(() => []);
  for (let i = 0; i < places.length; i++) found[places[i].query].push({ lsn: places[i].lsn, willInit: places[i].willInit, bytes: values[i] });
  for (const list of found) list.sort((a, b) => b.lsn - a.lsn);
  return found;
}

/** Index keys of the search under way: it does not wait, so there is one at a time. */
const rangeFrom = new Uint8Array(DELTA_KEY_SIZE);
const rangeEnd = new Uint8Array(DELTA_KEY_SIZE);
const DELTA_RANGE = { from: rangeFrom, end: rangeEnd };
/** Places found, by rising LSN, from the last that needs nothing below. */
const placeLsns = new Float64Array(FOUND_VALUES_MAX);
const placeValues = new Float64Array(FOUND_VALUES_MAX);
let places = 0;

function notePlace(node: BtreeNode, index: number): void {
  const value = node.value(index);
  if (value % 2 === 1) places = 0;
  if (places < FOUND_VALUES_MAX) {
    placeLsns[places] = node.u32(index, KEY_SIZE) * 0x1_0000_0000 + node.u32(index, KEY_SIZE + 4);
    placeValues[places] = value;
  }
  places++;
}

/** What a read that does not wait asks of a layer: `keyBytes` as in the index, LSNs in [floor, end). */
export interface NowQuery {
  readonly keyBytes: Uint8Array;
  readonly floor: Lsn;
  readonly end: Lsn;
}

/**
 * `readDelta` for one key, without waiting; values are added to `into`. False when that cannot be: then `into` is not to be used.
 * @throws StrataError corrupt
 */
export function readDeltaNow(file: LayerFile, query: NowQuery, into: FoundValues): boolean {
  putIndexKey(rangeFrom, query.keyBytes, query.floor);
  putIndexKey(rangeEnd, query.keyBytes, query.end);
  places = 0;
  if (!visitRangeNow(file.summary.indexRootBlock, { source: file, range: DELTA_RANGE, visit: notePlace })) return false;
  if (places + into.count > FOUND_VALUES_MAX) return false;
  for (let i = places - 1; i >= 0; i--) {
    const value = placeValues[i];
    if (!file.addBlobNow(Math.floor(value / 2), { lsn: placeLsns[i], willInit: value % 2 === 1 }, into)) return false;
  }
  return true;
}

function putIndexKey(into: Uint8Array, keyBytes: Uint8Array, lsn: Lsn): void {
  for (let i = 0; i < KEY_SIZE; i++) into[i] = keyBytes[i];
  putU32(into, KEY_SIZE, lsnHigh(lsn));
  putU32(into, KEY_SIZE + 4, lsnLow(lsn));
}

function putU32(into: Uint8Array, at: number, value: number): void {
  into[at] = value >>> 24;
  into[at + 1] = value >>> 16;
  into[at + 2] = value >>> 8;
  into[at + 3] = value;
}

async function findPlaces(file: LayerFile, query: KeyQuery, into: { query: number; places: Place[] }): Promise<void> {
  const end = deltaKey(query.key, query.lsnEnd);
  const start = into.places.length;
  const from = deltaKey(query.key, query.lsnFloor);
  await visitBtree({ source: (block) => file.indexBlock(block), rootBlock: file.summary.indexRootBlock, from }, (key, value) => {
    if (Buffer.compare(key, end) >= 0) return false;
    const willInit = value % 2 === 1;
    if (willInit) into.places.length = start;
    into.places.push({ lsn: lsnOf(key), willInit, offset: Math.floor(value / 2), query: into.query });
    return true;
  });
}

function lsnOf(indexKey: Uint8Array): Lsn {
  return lsnFromHalves(u32be(indexKey, KEY_SIZE), u32be(indexKey, KEY_SIZE + 4));
}

/** Without a DataView: this runs for every index entry looked at. */
function u32be(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}

export interface DeltaEntry extends StoredValue {
  readonly key: Key;
}

export interface DeltaEntryPlace {
  readonly key: Key;
  readonly lsn: Lsn;
  readonly willInit: boolean;
  readonly offset: number;
}

/** The next index entries from `from`, at most `maxEntries`. */
export async function readDeltaIndex(file: LayerFile, from: { key: Key; lsn: Lsn }, maxEntries: number): Promise<DeltaEntryPlace[]> {
  const entries: DeltaEntryPlace[] = [];
  await visitBtree({ source: (block) => file.indexBlock(block), rootBlock: file.summary.indexRootBlock, from: deltaKey(from.key, from.lsn) }, (key, value) => {
    entries.push({ key: decodeKey(dataViewOf(key), 0), lsn: lsnOf(key), willInit: value % 2 === 1, offset: Math.floor(value / 2) });
    return entries.length < maxEntries;
  });
  return entries;
}

const CHUNK_ENTRIES = 1000;
const CHUNK_BYTES = 256 * 1024;

/** All entries in (key, LSN) order, in chunks of bounded size. */
export async function* iterateDelta(file: LayerFile, pacer?: Pacer): AsyncGenerator<DeltaEntry[]> {
  let from: { key: Key; lsn: Lsn } = { key: KEY_MIN, lsn: 0 };
  for (;;) {
    const places = await readDeltaIndex(file, from, CHUNK_ENTRIES);
    if (places.length === 0) return;
    for (let at = 0; at < places.length; ) {
      let end = at + 1;
      while (end < places.length && places[end].offset - places[at].offset < CHUNK_BYTES) end++;
      const part = places.slice(at, end);
      const values = await file.readBlobs(part.map((place) => place.offset), GUESS_BYTES, pacer);
      yield part.map((place, i) => ({ key: place.key, lsn: place.lsn, willInit: place.willInit, bytes: values[i] }));
      at = end;
    }
    const last = places[places.length - 1];
    from = { key: last.key, lsn: last.lsn + 1 };
  }
}

export function compareEntries(a: { key: Key; lsn: Lsn }, b: { key: Key; lsn: Lsn }): number {
  return compareKeys(a.key, b.key) || a.lsn - b.lsn;
}
