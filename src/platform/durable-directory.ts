/** A directory whose own name survives a crash, and its parents' as far as they had to be made: what is in it is only as safe as that. */
import { dirname } from "node:path";
import type { FileSystem } from "./files.ts";

/** Makes `path` and its missing parents, each name synced in the directory above it. An existing directory costs a look. */
export async function makeDurableDirectory(files: FileSystem, path: string): Promise<void> {
  const missing: string[] = [];
  for (let at = path; at !== dirname(at) && !(await files.exists(at)); at = dirname(at)) missing.push(at);
  await files.makeDirectory(path);
  // The topmost first: a name is of no use below one that is lost.
  for (const made of missing.reverse()) await files.syncDirectory(dirname(made));
}
