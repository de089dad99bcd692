/**
 * JSON documents with a checksum that other readers ignore: the first field says that there is one, the last one is it.
 *
 *   {"strata_checked":true, … ,"strata_crc32c":"89abcdef"}
 *
 * The CRC-32C is of all bytes before the comma of the last field, 8 hex digits. Either field alone is an error, so no
 * single flipped bit makes a checked document look like one that never was. A rewrite by the peer drops both.
 */
import { utf8, utf8ToString } from "../../kit/bytes.ts";
import { crc32c } from "../../kit/crc32c.ts";
import { StrataError } from "../../kit/errors.ts";
import { allSteps } from "../../kit/steps.ts";

const MARK = "strata_checked";
const CRC = "strata_crc32c";
const TAIL_PATTERN = /,"strata_crc32c":"([0-9a-f]{8})"\}$/;
const TAIL_LENGTH = `,"${CRC}":"00000000"}`.length;

/** @param fields may hold no field of these two names */
export function encodeCheckedJson(fields: Readonly<Record<string, unknown>>): Uint8Array {
  return allSteps(encodeCheckedJsonInSteps(fields));
}

/** A field whose value, an object, is too long to be made at once. */
export interface LongField {
  readonly name: string;
  /** `"key":value` each, as JSON has it. */
  readonly entries: Iterable<string>;
}

/** Entries of a long field put together in one step. */
const ENTRIES_PER_STEP = 128;

/** The same document in steps, each well below a millisecond. @param long stands in `fields` as an empty object, behind no text that may contain its name */
export function* encodeCheckedJsonInSteps(fields: Readonly<Record<string, unknown>>, long: LongField | null = null): Generator<void, Uint8Array> {
  const text = JSON.stringify({ [MARK]: true, ...fields }).slice(0, -1);
  const empty = long === null ? "" : `"${long.name}":{}`;
  const cut = long === null ? text.length : text.indexOf(empty) + empty.length - 1;
  const parts = [utf8(text.slice(0, cut))];
  for (const entries of groups(long?.entries ?? [])) {
    parts.push(utf8((parts.length === 1 ? "" : ",") + entries.join()));
    yield;
  }
  parts.push(utf8(text.slice(cut)));
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, TAIL_LENGTH));
  let at = 0;
  let crc = 0;
  for (const part of parts) {
    bytes.set(part, at);
    crc = crc32c(part, 0, part.length, crc);
    at += part.length;
    yield;
  }
  bytes.set(utf8(`,"${CRC}":"${crc.toString(16).padStart(8, "0")}"}`), at);
  return bytes;
}

function* groups(entries: Iterable<string>): Generator<string[], void> {
  let group: string[] = [];
  for (const entry of entries) {
    group.push(entry);
    if (group.length < ENTRIES_PER_STEP) continue;
    yield group;
    group = [];
  }
  if (group.length > 0) yield group;
}

/**
 * The fields, without the two of the checksum.
 * @param code of the StrataError (kind corrupt) for anything that is no such document
 * @param required false to accept documents that carry no checksum at all
 */
export function decodeCheckedJson(bytes: Uint8Array, options: { readonly what: string; readonly code: string; readonly required: boolean }): Record<string, unknown> {
  const bad = (why: string, cause?: unknown) => new StrataError("corrupt", options.code, `${options.what}: ${why}`, { cause });
  const tail = TAIL_PATTERN.exec(utf8ToString(bytes.subarray(Math.max(0, bytes.length - TAIL_LENGTH))));
  if (tail !== null && crc32c(bytes, 0, bytes.length - TAIL_LENGTH) !== Number.parseInt(tail[1] as string, 16)) throw bad("its checksum does not match");
  const document = parse(bytes, bad);
  const { [MARK]: mark, [CRC]: crc, ...fields } = document;
  if ((mark === true) !== (tail !== null) || (crc === undefined) !== (mark === undefined)) throw bad("its checksum is damaged");
  if (options.required && tail === null) throw bad("it has no checksum");
  return fields;
}

function parse(bytes: Uint8Array, bad: (why: string, cause?: unknown) => StrataError): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(utf8ToString(bytes));
  } catch (error) {
    throw bad("not JSON", error);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw bad("not a JSON object");
  return value as Record<string, unknown>;
}
