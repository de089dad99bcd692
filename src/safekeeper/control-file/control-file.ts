/**
 * The control file on disk: replaced as a whole, through a temporary name, so that a crash leaves the old one or the new.
 */
import { StrataError } from "../../kit/errors.ts";
import type { FileHandle, FileSystem } from "../../platform/files.ts";
import { decodeControlFile, encodeControlFile } from "./codec.ts";
import type { TimelinePersistentState } from "./state.ts";

export const CONTROL_FILE_NAME = "safekeeper.control";
const TEMPORARY_NAME = "safekeeper.control.partial";

/** @throws StrataError not-found `file-not-found`; corrupt or fix-input as `decodeControlFile`, naming the path */
export async function readControlFile(files: FileSystem, directory: string): Promise<TimelinePersistentState> {
  const path = `${directory}/${CONTROL_FILE_NAME}`;
  const bytes = await files.readFile(path);
  try {
    return decodeControlFile(bytes);
  } catch (error) {
    if (!(error instanceof StrataError)) throw error;
    throw new StrataError(error.kind, error.code, `${path}: ${error.message}`, { cause: error, details: { path } });
  }
}

/** Returns when the state is durable. @param sync false leaves durability to the operating system (tests and `--no-sync`) */
export async function writeControlFile(files: FileSystem, directory: string, options: { state: TimelinePersistentState; sync: boolean }): Promise<void> {
  const temporary = `${directory}/${TEMPORARY_NAME}`;
  const file: FileHandle = await files.open(temporary, "truncate");
  try {
    await file.write(encodeControlFile(options.state), 0);
    // What is renamed over the old file must be whole after a crash.
    if (options.sync) await file.sync();
  } finally {
    await file.close();
  }
  await files.rename(temporary, `${directory}/${CONTROL_FILE_NAME}`);
  if (options.sync) await files.syncDirectory(directory);
}
