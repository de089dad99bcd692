/**
 * POSIX ustar archives, written piece by piece. Each entry: a 512-byte header, the content, zeros to a multiple of 512;
 * at the end two zero blocks.
 *
 * | offset | size | field |
 * | --- | --- | --- |
 * | 0 | 100 | name |
 * | 100 | 8, 8, 8 | mode, uid, gid: octal, NUL |
 * | 124 | 12 | size in octal |
 * | 136 | 12 | modification time in octal |
 * | 148 | 8 | checksum: sum of the header's bytes with this field as spaces; 6 octal digits, NUL, space |
 * | 156 | 1 | type: `0` file, `5` directory |
 * | 257 | 8 | `ustar`, NUL, `00` |
 *
 * Source: POSIX.1-2001 pax, ustar interchange format.
 */
import { copyBytes } from "../../kit/copy.ts";
import { InvariantError } from "../../kit/errors.ts";
import { utf8 } from "../../kit/bytes.ts";

const BLOCK_SIZE = 512;
const NAME_SIZE = 100;
const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;
const ZERO_DIGIT = 0x30;
/** Eleven octal digits. */
const SIZE_MAX = 8 ** 11 - 1;

export interface TarEntry {
  readonly name: string;
  readonly kind: "file" | "directory";
  /** 0 for directories. */
  readonly sizeBytes: number;
  readonly modifiedSeconds: number;
}

export function tarHeader(entry: TarEntry): Uint8Array {
  const header = new Uint8Array(BLOCK_SIZE);
  const name = utf8(entry.kind === "directory" ? `${entry.name}/` : entry.name);
  if (name.length > NAME_SIZE || entry.sizeBytes > SIZE_MAX) throw new InvariantError(`${entry.name} of ${entry.sizeBytes} bytes does not fit a ustar header`);
  const put = (offset: number, text: string): void => {
    for (let at = 0; at < text.length; at++) header[offset + at] = text.charCodeAt(at);
  };
  const octal = (offset: number, digits: number, value: number): void => {
    for (let at = offset + digits - 1, rest = value; at >= offset; at--, rest = Math.floor(rest / 8)) header[at] = ZERO_DIGIT + (rest % 8);
  };
  header.set(name, 0);
  octal(100, 7, entry.kind === "directory" ? DIRECTORY_MODE : FILE_MODE);
  octal(108, 7, 0);
  octal(116, 7, 0);
  octal(124, 11, entry.sizeBytes);
  octal(136, 11, Math.floor(entry.modifiedSeconds));
  put(148, "        ");
  put(156, entry.kind === "directory" ? "5" : "0");
  put(257, "ustar\u000000");
  let checksum = 0;
  for (let at = 0; at < BLOCK_SIZE; at++) checksum += header[at];
  octal(148, 6, checksum);
  header[154] = 0;
  return header;
}

/** Zeros that fill the last block of a content of `sizeBytes`. */
export function tarPadding(sizeBytes: number): Uint8Array {
  return new Uint8Array((BLOCK_SIZE - (sizeBytes % BLOCK_SIZE)) % BLOCK_SIZE);
}

export function tarEnd(): Uint8Array {
  return new Uint8Array(2 * BLOCK_SIZE);
}

/** A small file, whole: header, content and padding in one array. */
export function tarFile(entry: Omit<TarEntry, "kind" | "sizeBytes">, content: Uint8Array): Uint8Array {
  const header = tarHeader({ ...entry, kind: "file", sizeBytes: content.length });
  const bytes = new Uint8Array(Math.ceil((BLOCK_SIZE + content.length) / BLOCK_SIZE) * BLOCK_SIZE);
  bytes.set(header);
  copyBytes(content, 0, bytes, BLOCK_SIZE, content.length);
  return bytes;
}
