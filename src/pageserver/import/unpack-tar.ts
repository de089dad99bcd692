/** A tar archive that somebody sends, as files below a directory of ours. */
import { extract } from "tar-stream";
import { StrataError } from "../../kit/errors.ts";
import type { FileSystem } from "../../platform/files.ts";

/** What an archive may hold. */
export interface UnpackLimits {
  readonly maxFiles: number;
  /** Of all files together. */
  readonly maxBytes: number;
}

/** @throws StrataError fix-input `bad-archive` for what is no archive, leads out of the directory, or holds more than the limits; `unsupported-archive` */
export async function unpackTar(files: FileSystem, archive: AsyncIterable<Uint8Array>, target: { readonly directory: string; readonly limits: UnpackLimits }): Promise<void> {
  const { directory, limits: { maxFiles, maxBytes } } = target;
  const reader = extract();
  const feeding = feed(reader, archive);
  feeding.catch(() => {});
  let count = 0;
  let totalBytes = 0;
  try {
    for await (const entry of reader) {
      const { name, type, size = 0 } = entry.header;
      if (++count > maxFiles) throw bad(`more than ${maxFiles} files`);
      // By what the header says, before the first byte of it is written.
      totalBytes += type === "file" ? size : 0;
      if (!(totalBytes <= maxBytes)) throw bad(`more than ${maxBytes} bytes of files`);
      const path = `${directory}/${checkedName(name)}`;
      if (type === "directory") await files.makeDirectory(path);
      else if (type === "file") await writeFile(files, path, entry as AsyncIterable<Uint8Array>);
      else if (!isLeftOut(checkedName(name))) throw unsupported(name, type);
      entry.resume();
    }
  } catch (error) {
    reader.destroy(error as Error);
    // What came in may itself have ended with an error, which says more.
    await feeding;
    throw error instanceof StrataError ? error : bad("not a tar archive", error);
  }
  await feeding;
}

async function feed(reader: ReturnType<typeof extract>, archive: AsyncIterable<Uint8Array>): Promise<void> {
  try {
    for await (const chunk of archive) {
      if (reader.destroyed) return;
      if (reader.write(chunk) === false) await drained(reader);
    }
    reader.end(undefined);
  } catch (error) {
    reader.destroy(error as Error);
    throw error;
  }
}

function drained(reader: ReturnType<typeof extract>): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      reader.off("drain", done);
      reader.off("close", done);
      resolve();
    };
    reader.on("drain", done);
    reader.on("close", done);
  });
}

async function writeFile(files: FileSystem, path: string, content: AsyncIterable<Uint8Array>): Promise<void> {
  await files.makeDirectory(path.slice(0, path.lastIndexOf("/")));
  const file = await files.open(path, "create-new");
  try {
    let at = 0;
    for await (const chunk of content) {
      await file.write(chunk, at);
      at += chunk.length;
    }
  } finally {
    await file.close();
  }
}

function checkedName(name: string): string {
  const relative = name.replace(/^\.\//, "").replace(/\/$/, "");
  if (relative === "" || relative === ".") return ".";
  if (relative.startsWith("/") || relative.includes("\0") || relative.split("/").some((part) => part === ".." || part === "")) throw bad(`the name "${name.slice(0, 200)}"`);
  return relative;
}

/** What lies behind a link is of the machine that was backed up, and not in the archive: WAL, or what no server keeps there. */
function isLeftOut(name: string): boolean {
  return name === "pg_wal" || name.startsWith("pg_wal/") || !/^(?:base|global|pg_tblspc|pg_xact|pg_multixact|pg_commit_ts|pg_twophase|pg_logical)(?:\/|$)/.test(name);
}

function unsupported(name: string, type: string): StrataError {
  const what = name.includes("pg_tblspc/") ? "a tablespace elsewhere: give its files in the place of the link (tar -h)" : "its content is not in the archive";
  return new StrataError("fix-input", "unsupported-archive", `archive: ${name.slice(0, 200)} is a ${type}, ${what}`);
}

function bad(what: string, cause?: unknown): StrataError {
  return new StrataError("fix-input", "bad-archive", `archive: ${what}`, { cause });
}
