/** A directory whose own name survives a crash, and its parents' names: what is in it is only as safe as that. */
import { dirname } from "node:path";
import { isStrataError } from "../kit/errors.ts";
import type { FileSystem } from "./files.ts";

/**
 * Makes `path` and its missing parents, and syncs each name in the directory above it. Those that are there already too: who made them may
 * have died before it came to that. Only where we may not even look, nothing is ours to sync.
 */
export async function makeDurableDirectory(files: FileSystem, path: string): Promise<void> {
  const names: { readonly name: string; readonly existed: boolean }[] = [];
  for (let at = path; at !== dirname(at); at = dirname(at)) names.push({ name: at, existed: await files.exists(at) });
  await files.makeDirectory(path);
  // The topmost first: a name is of no use below one that is lost.
  for (const { name, existed } of names.reverse()) {
    try {
      await files.syncDirectory(dirname(name));
    } catch (error) {
      if (!existed || !isForbidden(error)) throw error;
    }
  }
}

function isForbidden(error: unknown): boolean {
  if (!isStrataError(error)) return false;
  const { cause } = error;
  return cause instanceof Error && "code" in cause && (cause.code === "EACCES" || cause.code === "EPERM");
}
