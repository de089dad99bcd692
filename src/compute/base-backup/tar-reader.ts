/**
 * A tar archive cut into events as it arrives, without holding more than a header of it. Pure.
 *
 * | offset | size | field of a 512-byte header |
 * | --- | --- | --- |
 * | 0 | 100 | name, NUL-padded |
 * | 124 | 12 | size, octal; or base-256 with the top bit of the first byte set |
 * | 148 | 8 | checksum: sum of the header's bytes, this field taken as spaces; octal |
 * | 156 | 1 | type: `0` or NUL a file, `5` a directory |
 * | 345 | 155 | prefix of the name, before a slash |
 *
 * Contents are padded to 512 bytes; two zero blocks end the archive. Source: POSIX.1-2001 ustar.
 */
import { copyBytes } from "../../kit/copy.ts";
import { StrataError } from "../../kit/errors.ts";

export type TarEvent =
  | { readonly kind: "directory"; readonly name: string }
  | { readonly kind: "file"; readonly name: string; readonly sizeBytes: number }
  /** A view of the chunk that was pushed. */
  | { readonly kind: "data"; readonly bytes: Uint8Array }
  | { readonly kind: "file-end" };

const BLOCK = 512;
const NAME_BYTES = 100;
const SIZE_AT = 124;
const CHECKSUM_AT = 148;
const TYPE_AT = 156;
const PREFIX_AT = 345;
const PREFIX_BYTES = 155;
const TYPE_FILE = 0x30;
const TYPE_DIRECTORY = 0x35;

export class TarReader {
  readonly #header = new Uint8Array(BLOCK);
  #headerBytes = 0;
  #contentLeft = 0;
  #paddingLeft = 0;
  #inFile = false;
  #ended = false;

  /** Whether the archive's end marker was seen. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Events of the next chunk. @throws StrataError corrupt `bad-tar` for a damaged header or an unsafe name */
  *push(chunk: Uint8Array): Generator<TarEvent, void, void> {
    let at = 0;
    while (at < chunk.length && !this.#ended) {
      if (this.#contentLeft > 0) {
        const bytes = chunk.subarray(at, at + this.#contentLeft);
        this.#contentLeft -= bytes.length;
        at += bytes.length;
        yield { kind: "data", bytes };
      } else if (this.#paddingLeft > 0) {
        const skipped = Math.min(this.#paddingLeft, chunk.length - at);
        this.#paddingLeft -= skipped;
        at += skipped;
      } else {
        const taken = Math.min(BLOCK - this.#headerBytes, chunk.length - at);
        copyBytes(chunk, at, this.#header, this.#headerBytes, taken);
        this.#headerBytes += taken;
        at += taken;
        if (this.#headerBytes === BLOCK) yield* this.#parseHeader();
      }
      if (this.#inFile && this.#contentLeft === 0) {
        this.#inFile = false;
        yield { kind: "file-end" };
      }
    }
  }

  *#parseHeader(): Generator<TarEvent, void, void> {
    this.#headerBytes = 0;
    const header = this.#header;
    if (header.every((byte) => byte === 0)) {
      this.#ended = true;
      return;
    }
    checkSum(header);
    const prefix = textAt(header, PREFIX_AT, PREFIX_BYTES);
    const name = safeName((prefix === "" ? "" : `${prefix}/`) + textAt(header, 0, NAME_BYTES));
    const type = header[TYPE_AT];
    const sizeBytes = sizeAt(header);
    if (type === TYPE_DIRECTORY) {
      yield { kind: "directory", name };
      return;
    }
    if (type !== TYPE_FILE && type !== 0) throw badTar(`"${name}" is neither a file nor a directory (type ${type})`);
    this.#contentLeft = sizeBytes;
    this.#paddingLeft = (BLOCK - (sizeBytes % BLOCK)) % BLOCK;
    this.#inFile = true;
    yield { kind: "file", name, sizeBytes };
  }
}

function checkSum(header: Uint8Array): void {
  let sum = 0;
  for (let at = 0; at < BLOCK; at++) sum += at >= CHECKSUM_AT && at < CHECKSUM_AT + 8 ? 0x20 : header[at];
  if (sum !== Number.parseInt(textAt(header, CHECKSUM_AT, 8).trim(), 8)) throw badTar("header checksum is wrong");
}

function sizeAt(header: Uint8Array): number {
  if ((header[SIZE_AT] & 0x80) === 0) {
    const text = textAt(header, SIZE_AT, 12).trim();
    if (!/^[0-7]*$/.test(text)) throw badTar("size is not octal");
    return text === "" ? 0 : Number.parseInt(text, 8);
  }
  let size = header[SIZE_AT] & 0x7f;
  for (let at = SIZE_AT + 1; at < SIZE_AT + 12; at++) size = size * 256 + header[at];
  if (size > Number.MAX_SAFE_INTEGER) throw badTar("size is out of range");
  return size;
}

/** Nothing may land outside the directory that is unpacked into. */
function safeName(name: string): string {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (name.startsWith("/") || parts.length === 0 || parts.includes("..")) throw badTar(`unsafe name "${name}"`);
  return parts.join("/");
}

function textAt(bytes: Uint8Array, at: number, length: number): string {
  const field = bytes.subarray(at, at + length);
  const end = field.indexOf(0);
  return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end));
}

function badTar(what: string): StrataError {
  return new StrataError("corrupt", "bad-tar", `base backup archive: ${what}`);
}
