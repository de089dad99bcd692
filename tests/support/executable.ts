/** The program under test: dist/strata when it is built, and the sources. */
import { existsSync } from "node:fs";
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "../..");
export const BUILT = join(ROOT, "dist/strata");

export interface Program {
  readonly name: "executable" | "sources";
  readonly command: readonly string[];
}

/** Both ways to run it. The executable must have been built: end-to-end tests are about it. */
export function programs(): Program[] {
  if (!existsSync(BUILT)) throw new Error(`${BUILT} is missing: build it first (bun run build)`);
  return [
    { name: "executable", command: [BUILT] },
    { name: "sources", command: [process.execPath, join(ROOT, "src/main.ts")] },
  ];
}

/** A directory to put on PATH, in which `strata` is the program. */
export async function binDirectory(program: Program, directory: string): Promise<string> {
  await mkdir(directory, { recursive: true });
  const path = join(directory, "strata");
  if (program.name === "executable") await symlink(BUILT, path);
  else {
    await writeFile(path, `#!/bin/sh\nexec ${program.command.map((word) => `'${word}'`).join(" ")} "$@"\n`);
    await chmod(path, 0o755);
  }
  return directory;
}
