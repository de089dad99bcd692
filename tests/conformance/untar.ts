/** Reads a ustar archive by its documented header (name at 0, size at 124 and checksum at 148 in octal, type at 156), on its own. */
const BLOCK = 512;

export interface TarFile {
  /** `0` a file, `5` a directory, whose name ends in a slash. */
  readonly type: string;
  readonly content: Buffer;
}

/** @throws Error on a bad checksum, a name that stands twice, or a missing end */
export function untar(archive: Buffer): Map<string, TarFile> {
  const files = new Map<string, TarFile>();
  let at = 0;
  for (; archive.subarray(at, at + BLOCK).some((byte) => byte !== 0); ) {
    const header = archive.subarray(at, at + BLOCK);
    if (header.toString("latin1", 257, 262) !== "ustar") throw new Error(`no ustar header at ${at}`);
    const name = header.toString("latin1", 0, header.indexOf(0));
    const octal = (offset: number, length: number): number => Number.parseInt(header.toString("latin1", offset, offset + length), 8);
    const sum = header.reduce((total, byte, index) => total + (index >= 148 && index < 156 ? 0x20 : byte), 0);
    if (octal(148, 8) !== sum) throw new Error(`checksum of the header of ${name}`);
    const size = octal(124, 12);
    if (files.has(name)) throw new Error(`${name} stands twice`);
    files.set(name, { type: String.fromCharCode(header[156]), content: Buffer.from(archive.subarray(at + BLOCK, at + BLOCK + size)) });
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
  if (archive.length - at !== 2 * BLOCK) throw new Error(`${archive.length - at} bytes at the end, two blocks of zeros expected`);
  return files;
}
