/**
 * The 18-byte key of the pageserver's key space, big-endian, compared as bytes:
 *
 * | offset | size | field |
 * | --- | --- | --- |
 * | 0 | 1 | field1: kind |
 * | 1 | 4 | field2: tablespace oid |
 * | 5 | 4 | field3: database oid |
 * | 9 | 4 | field4: relation number |
 * | 13 | 1 | field5: fork |
 * | 14 | 4 | field6: block number |
 *
 * What the fields mean for each kind of key is in `mapping.ts`. Source: the peer's pageserver_api key module.
 */
import { StrataError } from "../kit/errors.ts";

export const KEY_SIZE = 18;
/** Of each byte. Names of layers are made by the ten thousand. */
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0").toUpperCase());

export interface Key {
  readonly field1: number;
  readonly field2: number;
  readonly field3: number;
  readonly field4: number;
  readonly field5: number;
  readonly field6: number;
}

/** Half-open: start ≤ key < end. */
export interface KeyRange {
  readonly start: Key;
  readonly end: Key;
}

export const KEY_MIN: Key = { field1: 0, field2: 0, field3: 0, field4: 0, field5: 0, field6: 0 };
export const KEY_MAX: Key = { field1: 0xff, field2: 0xffffffff, field3: 0xffffffff, field4: 0xffffffff, field5: 0xff, field6: 0xffffffff };

export function compareKeys(a: Key, b: Key): number {
  return (
    a.field1 - b.field1 || a.field2 - b.field2 || a.field3 - b.field3 || a.field4 - b.field4 || a.field5 - b.field5 || a.field6 - b.field6
  );
}

export function keyEquals(a: Key, b: Key): boolean {
  return a.field6 === b.field6 && a.field4 === b.field4 && a.field5 === b.field5 && a.field3 === b.field3 && a.field2 === b.field2 && a.field1 === b.field1;
}

export function rangeContains(range: KeyRange, key: Key): boolean {
  return compareKeys(range.start, key) <= 0 && compareKeys(key, range.end) < 0;
}

export function rangesOverlap(a: KeyRange, b: KeyRange): boolean {
  return compareKeys(a.start, b.end) < 0 && compareKeys(b.start, a.end) < 0;
}

/** The key right after `key`, carrying over fields. @throws StrataError fix-input `key-overflow` after KEY_MAX */
export function nextKey(key: Key): Key {
  if (key.field6 < 0xffffffff) return { ...key, field6: key.field6 + 1 };
  if (key.field5 < 0xff) return { ...key, field6: 0, field5: key.field5 + 1 };
  if (key.field4 < 0xffffffff) return { ...key, field6: 0, field5: 0, field4: key.field4 + 1 };
  if (key.field3 < 0xffffffff) return { ...key, field6: 0, field5: 0, field4: 0, field3: key.field3 + 1 };
  if (key.field2 < 0xffffffff) return { ...key, field6: 0, field5: 0, field4: 0, field3: 0, field2: key.field2 + 1 };
  if (key.field1 < 0xff) return { field6: 0, field5: 0, field4: 0, field3: 0, field2: 0, field1: key.field1 + 1 };
  throw new StrataError("fix-input", "key-overflow", "there is no key after the last one");
}

/** Writes 18 bytes at `offset`. */
export function encodeKeyInto(key: Key, view: DataView, offset: number): void {
  view.setUint8(offset, key.field1);
  view.setUint32(offset + 1, key.field2);
  view.setUint32(offset + 5, key.field3);
  view.setUint32(offset + 9, key.field4);
  view.setUint8(offset + 13, key.field5);
  view.setUint32(offset + 14, key.field6);
}

/** Reads 18 bytes at `offset`; the caller has checked the bounds. */
export function decodeKey(view: DataView, offset: number): Key {
  return {
    field1: view.getUint8(offset),
    field2: view.getUint32(offset + 1),
    field3: view.getUint32(offset + 5),
    field4: view.getUint32(offset + 9),
    field5: view.getUint8(offset + 13),
    field6: view.getUint32(offset + 14),
  };
}

export function keyToBytes(key: Key): Uint8Array {
  const bytes = new Uint8Array(KEY_SIZE);
  encodeKeyInto(key, new DataView(bytes.buffer), 0);
  return bytes;
}

/** 36 upper-case hex digits: the form in layer file names. */
export function keyToHex({ field1, field2, field3, field4, field5, field6 }: Key): string {
  return HEX[field1] + hexOfU32(field2) + hexOfU32(field3) + hexOfU32(field4) + HEX[field5] + hexOfU32(field6);
}

/** 8 upper-case hex digits. */
export function hexOfU32(value: number): string {
  return HEX[value >>> 24] + HEX[(value >>> 16) & 0xff] + HEX[(value >>> 8) & 0xff] + HEX[value & 0xff];
}

/** @throws StrataError fix-input `bad-key` */
export function keyFromHex(text: string): Key {
  if (!/^[0-9a-fA-F]{36}$/.test(text)) throw new StrataError("fix-input", "bad-key", `"${text}" is not a key of 36 hex digits`);
  const bytes = Uint8Array.fromHex(text);
  return decodeKey(new DataView(bytes.buffer), 0);
}
