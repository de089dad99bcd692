/**
 * Names of layers: the rectangle of key × LSN they cover, in text. Hex in upper case; ends are exclusive.
 *
 * | what | form |
 * | --- | --- |
 * | delta layer | `KEYSTART-KEYEND__LSNSTART-LSNEND`, keys of 36 digits, LSNs of 16 |
 * | image layer | `KEYSTART-KEYEND__LSN` |
 * | local file | name`-v1-GGGGGGGG`, generation of 8 lower-case digits; the bare name for a layer without generation |
 * | object | name`-GGGGGGGG`, the bare name without generation |
 *
 * Source: the peer's storage_layer/layer_name module and remote_timeline_client paths.
 */
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnFromHalves, lsnHigh, lsnLow } from "../../kit/lsn.ts";
import { compareKeys, hexOfU32, type Key, KEY_MAX, KEY_MIN, type KeyRange, keyEquals, keyFromHex, keyToHex } from "../../keyspace/key.ts";

/** Half-open. */
export interface LsnRange {
  readonly start: Lsn;
  readonly end: Lsn;
}

export type LayerName =
  | { readonly kind: "delta"; readonly keyRange: KeyRange; readonly lsnRange: LsnRange }
  | { readonly kind: "image"; readonly keyRange: KeyRange; readonly lsn: Lsn };

/** Null stands for layers from before generations. */
export type Generation = number | null;

const NAME_PATTERN = /^([0-9A-Fa-f]{36})-([0-9A-Fa-f]{36})__([0-9A-Fa-f]{16})(?:-([0-9A-Fa-f]{16}))?$/;
const LOCAL_PATTERN = /^(.+?)(?:-v1-([0-9a-f]{8}))?$/;

/** LSNs a layer covers; an image at x covers [x, x + 1). */
export function layerLsnRange(name: LayerName): LsnRange {
  return name.kind === "delta" ? name.lsnRange : { start: name.lsn, end: name.lsn + 1 };
}

/** L0: straight from memory, over all keys. */
export function isL0(name: LayerName): boolean {
  return name.kind === "delta" && keyEquals(name.keyRange.start, KEY_MIN) && keyEquals(name.keyRange.end, KEY_MAX);
}

function lsnToHex16(lsn: Lsn): string {
  return hexOfU32(lsnHigh(lsn)) + hexOfU32(lsnLow(lsn));
}

function lsnFromHex16(text: string): Lsn {
  return lsnFromHalves(Number.parseInt(text.slice(0, 8), 16), Number.parseInt(text.slice(8), 16));
}

export function layerNameToString(name: LayerName): string {
  const keys = `${keyToHex(name.keyRange.start)}-${keyToHex(name.keyRange.end)}`;
  if (name.kind === "image") return `${keys}__${lsnToHex16(name.lsn)}`;
  return `${keys}__${lsnToHex16(name.lsnRange.start)}-${lsnToHex16(name.lsnRange.end)}`;
}

/** The bare name, without generation. @throws StrataError fix-input `bad-layer-name` */
export function parseLayerName(text: string): LayerName {
  const match = NAME_PATTERN.exec(text);
  if (match === null) throw bad(text, "not of the form KEY-KEY__LSN or KEY-KEY__LSN-LSN");
  const keyRange = { start: keyFromHex(match[1] as string), end: keyFromHex(match[2] as string) };
  if (compareKeys(keyRange.start, keyRange.end) >= 0) throw bad(text, "its key range is empty");
  const start = lsnFromHex16(match[3] as string);
  if (match[4] === undefined) return { kind: "image", keyRange, lsn: start };
  const end = lsnFromHex16(match[4]);
  if (start >= end) throw bad(text, "its LSN range is empty");
  return { kind: "delta", keyRange, lsnRange: { start, end } };
}

export function generationSuffix(generation: Generation): string {
  return generation === null ? "" : `-${generation.toString(16).padStart(8, "0")}`;
}

export function localLayerFileName(name: LayerName, generation: Generation): string {
  return layerNameToString(name) + (generation === null ? "" : `-v1${generationSuffix(generation)}`);
}

/** Null for files that are not layers. */
export function parseLocalLayerFileName(fileName: string): { name: LayerName; generation: Generation } | null {
  const match = LOCAL_PATTERN.exec(fileName);
  if (match === null || !NAME_PATTERN.test(match[1] as string)) return null;
  return { name: parseLayerName(match[1] as string), generation: match[2] === undefined ? null : Number.parseInt(match[2], 16) };
}

/** Layers that could not have been finished at `diskConsistentLsn`: left from a later time that was lost. */
export function isInFuture(name: LayerName, diskConsistentLsn: Lsn): boolean {
  return name.kind === "image" ? name.lsn > diskConsistentLsn : name.lsnRange.end > diskConsistentLsn + 1;
}

function bad(text: string, why: string): StrataError {
  return new StrataError("fix-input", "bad-layer-name", `"${text}" is not a layer name: ${why}`);
}

export function keyRangeText(range: KeyRange): string {
  return `${keyToHex(range.start)}-${keyToHex(range.end)}`;
}

export function keyText(key: Key): string {
  return keyToHex(key);
}
