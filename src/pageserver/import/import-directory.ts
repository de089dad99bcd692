/** Directories that archives are unpacked into: below the working directory, gone when the import has ended. */
import type { FileSystem } from "../../platform/files.ts";
import type { Platform } from "../../platform/platform.ts";

const NAME = /^import-[0-9a-f]{16}$/;

/** Runs `work` in a new empty directory and removes it. */
export async function withImportDirectory<T>({ files, random }: Pick<Platform, "files" | "random">, workDirectory: string, work: (directory: string) => Promise<T>): Promise<T> {
  const directory = `${workDirectory}/import-${random.bytes(8).toHex()}`;
  await files.makeDirectory(directory);
  try {
    return await work(directory);
  } finally {
    await files.removeTree(directory);
  }
}

/** What imports of a process that was killed left behind. Nothing may be imported meanwhile. Returns how many. */
export async function sweepImportDirectories(files: FileSystem, workDirectory: string): Promise<number> {
  const left = (await files.list(workDirectory)).filter((name) => NAME.test(name));
  for (const name of left) await files.removeTree(`${workDirectory}/${name}`);
  return left.length;
}
