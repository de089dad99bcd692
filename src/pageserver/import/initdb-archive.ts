/**
 * What initdb made, kept: the whole data directory as one zstd frame around a tar archive. A timeline that has lost everything else
 * begins again from it, with the same system identifier and at the same LSN, so that its WAL fits; and the shards of a tenant
 * begin from one cluster.
 *
 * Source: the peer's `create_zst_tarball` and `extract_zst_tarball` (libs/utils/src/zstd.rs).
 */
import { concatBytes } from "../../kit/bytes.ts";
import { isStrataError, StrataError } from "../../kit/errors.ts";
import { areWholeZstdFrames } from "../../kit/zstd-frame.ts";
import { zstdCompressStream, zstdDecompressStream } from "../../kit/zstd-stream.ts";
import type { FileSystem } from "../../platform/files.ts";
import { tarEnd, tarHeader, tarPadding } from "../basebackup/tar.ts";
import { unpackTar } from "./unpack-tar.ts";

/** Of an archive, which is held in memory: one of a stock initdb has about 3 MB. */
export const INITDB_ARCHIVE_MAX_BYTES = 64 * 1024 * 1024;
const LIMITS = { maxFiles: 100_000, maxBytes: 1024 * 1024 * 1024 };
const LEVEL = 3;
const CHUNK_BYTES = 256 * 1024;

/** @throws StrataError fix-input `initdb-too-large` */
export async function packInitdb(files: FileSystem, directory: string): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const part of zstdCompressStream(tarOf(files, directory), LEVEL)) {
    parts.push(part);
    sizeBytes += part.length;
    if (sizeBytes > INITDB_ARCHIVE_MAX_BYTES) throw tooLarge(`the archive of ${directory} has more than ${INITDB_ARCHIVE_MAX_BYTES} bytes`);
  }
  return concatBytes(parts);
}

/** @throws StrataError corrupt `bad-initdb-archive` when it is cut short, damaged, too large, or leads out of the directory */
export async function unpackInitdb(files: FileSystem, archive: Uint8Array, directory: string): Promise<void> {
  // The decoder gives what it has of a frame that is cut short, and a tar archive may be cut between two files.
  if (archive.length > INITDB_ARCHIVE_MAX_BYTES || !areWholeZstdFrames(archive)) throw badArchive(`${archive.length} bytes are not whole zstd frames`);
  // Headers and padding come on top of the files.
  const maxTarBytes = LIMITS.maxBytes + LIMITS.maxFiles * 1024;
  try {
    await unpackTar(files, zstdDecompressStream(only(archive), maxTarBytes), { directory, limits: LIMITS });
  } catch (error) {
    if (isStrataError(error, "bad-archive") || isStrataError(error, "unsupported-archive") || isStrataError(error, "bad-zstd")) throw badArchive(error.message, error);
    throw error;
  }
}

async function* only(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

async function* tarOf(files: FileSystem, directory: string): AsyncGenerator<Uint8Array> {
  const total = { files: 0, bytes: 0 };
  for await (const { name, sizeBytes, isDirectory } of tree(files, directory, "")) {
    total.files++;
    total.bytes += sizeBytes;
    if (total.files > LIMITS.maxFiles || total.bytes > LIMITS.maxBytes) throw tooLarge(`${directory} holds ${total.files} files of ${total.bytes} bytes and more`);
    // No times: equal directories are equal archives.
    yield tarHeader({ name, kind: isDirectory ? "directory" : "file", sizeBytes, modifiedSeconds: 0 });
    if (!isDirectory) yield* contentOf(files, `${directory}/${name}`, sizeBytes);
  }
  yield tarEnd();
}

interface Found {
  readonly name: string;
  /** 0 for directories. */
  readonly sizeBytes: number;
  readonly isDirectory: boolean;
}

/** In the order of names, directories before what is in them. */
async function* tree(files: FileSystem, directory: string, below: string): AsyncGenerator<Found> {
  for (const name of await files.list(`${directory}/${below}`)) {
    const path = below === "" ? name : `${below}/${name}`;
    const { isDirectory, sizeBytes } = await files.stat(`${directory}/${path}`);
    yield { name: path, sizeBytes: isDirectory ? 0 : sizeBytes, isDirectory };
    if (isDirectory) yield* tree(files, directory, path);
  }
}

async function* contentOf(files: FileSystem, path: string, sizeBytes: number): AsyncGenerator<Uint8Array> {
  const file = await files.open(path, "read");
  try {
    for (let at = 0; at < sizeBytes; ) {
      const chunk = new Uint8Array(Math.min(CHUNK_BYTES, sizeBytes - at));
      const length = await file.read(chunk, at);
      if (length < chunk.length) throw new StrataError("corrupt", "truncated", `${path} became shorter while it was read`);
      yield chunk;
      at += length;
    }
  } finally {
    await file.close();
  }
  yield tarPadding(sizeBytes);
}

function tooLarge(what: string): StrataError {
  return new StrataError("fix-input", "initdb-too-large", what);
}

function badArchive(what: string, cause?: unknown): StrataError {
  return new StrataError("corrupt", "bad-initdb-archive", `initdb archive: ${what}`, { cause });
}
