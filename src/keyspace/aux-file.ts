/**
 * Auxiliary files (logical slots, snapshots, mappings …), version 2: each path hashes to one sparse key, whose
 * value lists the files that share it.
 *
 * Key: 16 bytes — 62, two bytes for the directory (table below), the low 13 bytes of FNV-1a-128 of the path's rest —
 * spread over the key's fields with field2 holding 16 bits only.
 *
 * | path | directory | hashed |
 * | --- | --- | --- |
 * | pg_logical/mappings/… | 01 01 | after the slash |
 * | pg_logical/snapshots/… | 01 02 | after the slash |
 * | pg_logical/replorigin_checkpoint | 01 03 | nothing |
 * | pg_logical/… | 01 FF | after the slash |
 * | pg_replslot/… | 02 01 | after the slash |
 * | anything else | FF FF | the whole path |
 *
 * Value: empty, or u8 1, then per file u32be path length, path, u32be content length, content.
 *
 * Source: the peer's pageserver aux_file module; FNV: draft-eastlake-fnv.
 */
import { ByteReader, ByteWriter, utf8, utf8ToString } from "../kit/bytes.ts";
import { StrataError } from "../kit/errors.ts";
import type { Key } from "./key.ts";
import { AUX_KEY_PREFIX } from "./mapping.ts";

const FNV_OFFSET = 0x6c62272e07bb014262b821756295c58dn;
const FNV_PRIME = 0x0000000001000000000000000000013bn;
const MASK_128 = (1n << 128n) - 1n;
const VALUE_VERSION = 1;

export interface AuxFile {
  readonly path: string;
  readonly content: Uint8Array;
}

export function fnv128(bytes: Uint8Array): bigint {
  let hash = FNV_OFFSET;
  for (const byte of bytes) hash = ((hash ^ BigInt(byte)) * FNV_PRIME) & MASK_128;
  return hash;
}

function splitPath(path: string): { directory: number; rest: string } {
  if (path.startsWith("pg_logical/mappings/")) return { directory: 0x0101, rest: path.slice("pg_logical/mappings/".length) };
  if (path.startsWith("pg_logical/snapshots/")) return { directory: 0x0102, rest: path.slice("pg_logical/snapshots/".length) };
  if (path === "pg_logical/replorigin_checkpoint") return { directory: 0x0103, rest: "" };
  if (path.startsWith("pg_logical/")) return { directory: 0x01ff, rest: path.slice("pg_logical/".length) };
  if (path.startsWith("pg_replslot/")) return { directory: 0x0201, rest: path.slice("pg_replslot/".length) };
  return { directory: 0xffff, rest: path };
}

export function auxFileKey(path: string): Key {
  const { directory, rest } = splitPath(path);
  const hash = fnv128(utf8(rest));
  return {
    field1: AUX_KEY_PREFIX,
    field2: directory,
    field3: Number((hash >> 72n) & 0xffffffffn),
    field4: Number((hash >> 40n) & 0xffffffffn),
    field5: Number((hash >> 32n) & 0xffn),
    field6: Number(hash & 0xffffffffn),
  };
}

/** No files give the empty value, which stands for a deleted key. */
export function encodeAuxFiles(files: readonly AuxFile[]): Uint8Array {
  if (files.length === 0) return new Uint8Array(0);
  const writer = new ByteWriter();
  writer.u8(VALUE_VERSION);
  for (const file of files) {
    const path = utf8(file.path);
    writer.u32be(path.length).bytes(path).u32be(file.content.length).bytes(file.content);
  }
  return writer.finish();
}

/** Contents are views into `value`. @throws StrataError corrupt `bad-aux-file` or `truncated` */
export function decodeAuxFiles(value: Uint8Array): AuxFile[] {
  if (value.length === 0) return [];
  const reader = new ByteReader(value, "aux file value");
  const version = reader.u8();
  if (version !== VALUE_VERSION) throw new StrataError("corrupt", "bad-aux-file", `aux file value has version ${version}, not ${VALUE_VERSION}`);
  const files: AuxFile[] = [];
  while (reader.remaining > 0) {
    const path = utf8ToString(reader.bytes(reader.u32be()));
    files.push({ path, content: reader.bytes(reader.u32be()) });
  }
  return files;
}

/** The value of a key after `path` was written, or removed when `content` is empty. */
export function updateAuxFiles(value: Uint8Array, path: string, content: Uint8Array): Uint8Array {
  const others = decodeAuxFiles(value).filter((file) => file.path !== path);
  return encodeAuxFiles(content.length === 0 ? others : [...others, { path, content }]);
}
