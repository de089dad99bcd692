/** Files in directories that are made when the first file comes. */
import { dirname } from "node:path";
import { isStrataError } from "../kit/errors.ts";
import type { FileHandle, FileSystem, OpenMode } from "./files.ts";

/** As `FileSystem.open`; a missing directory is made, with its parents. Its name is not synced: for files that may be lost. */
export async function openWithDirectory(files: FileSystem, path: string, mode: Exclude<OpenMode, "read" | "read-write">): Promise<FileHandle> {
  try {
    return await files.open(path, mode);
  } catch (error) {
    if (!isStrataError(error, "file-not-found")) throw error;
    await files.makeDirectory(dirname(path));
    return await files.open(path, mode);
  }
}
