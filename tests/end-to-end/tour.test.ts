/** The README's tour, every line of it, with nothing but the executable; and once more from the sources. */
import { afterEach, expect, test } from "bun:test";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { consoleSteps, outputMatches } from "../support/console-blocks.ts";
import { binDirectory, programs } from "../support/executable.ts";
import { Shell } from "../support/shell.ts";

const ROOT = join(import.meta.dir, "../..");
/** Starting a cluster takes ten seconds on an idle machine; a busy one has a lot of room, and a hang ends with a reason. */
const STEP_TIMEOUT_MS = 150_000;
const LOG_LINES = 60;
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

for (const program of programs()) {
  test(`the tour works with the ${program.name}`, async () => {
    const directory = await mkdtemp(join(tmpdir(), "strata-tour-"));
    await chmod(directory, 0o755);
    cleanups.push(() => rm(directory, { recursive: true, force: true }));
    const bin = await binDirectory(program, join(directory, "bin"));
    const shell = new Shell({ cwd: directory, path: bin });
    cleanups.push(() => shell.close(), () => shell.run("strata dev kill"));
    const steps = consoleSteps(await readFile(join(ROOT, "README.md"), "utf8"));
    expect(steps.length).toBeGreaterThan(15);
    for (const { command, expected } of steps) {
      const { output, exitCode } = await shell.run(command, { timeoutMs: STEP_TIMEOUT_MS }).catch(async (error: Error) => {
        throw new Error(`${error.message}\nthe log ends:\n${await logTail(directory)}`);
      });
      const told = `$ ${command}\n${output}`;
      if (exitCode !== 0 || !outputMatches(output, expected)) throw new Error(`${told}\nexit code ${exitCode}; expected:\n${expected.join("\n")}`);
    }
  }, 600_000);
}

async function logTail(directory: string): Promise<string> {
  const log = await readFile(join(directory, ".strata/dev.log"), "utf8").catch(() => "(no log)");
  return log.split("\n").slice(-LOG_LINES).join("\n");
}
