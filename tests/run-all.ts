/**
 * The whole check, as `bun run test` and CI run it: install, type check, lint, build, then every test file. Prints one line
 * a run, the whole output of the runs that failed, and as the very last line on stdout `N passed, N failed`. Exit status 1
 * when anything failed, or when a run ended without its summary (a test that calls process.exit would look green).
 *
 * With arguments only the test files whose path contains one of them run, and nothing before them.
 *
 * It imports nothing from node_modules: in a clean clone there is none yet.
 */
import { readdirSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");
const BUN = process.execPath;
const TEST_TIMEOUT_MS = 120_000;
const RUN_TIMEOUT_MS = 15 * 60_000;
const MAX_FILES_A_RUN = 12;
const PARALLEL = Math.max(2, Math.min(4, availableParallelism()));

interface Result {
  readonly name: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly output: string;
  readonly seconds: number;
  /** Ended without a summary, by a signal, or with an error outside any test. */
  readonly died: boolean;
}

async function run(command: readonly string[], timeoutMs: number): Promise<{ output: string; exitCode: number; seconds: number }> {
  const start = performance.now();
  const child = Bun.spawn([...command], { cwd: ROOT, stdin: "ignore", stdout: "pipe", stderr: "pipe", env: { ...process.env, FORCE_COLOR: "0", NO_COLOR: "1" } });
  const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
  const [stdout, stderr, exitCode] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  clearTimeout(timer);
  return { output: stdout + stderr, exitCode, seconds: (performance.now() - start) / 1000 };
}

/** A step that passes or fails as a whole. Only its failure counts: the sum is one of tests. */
async function step(name: string, command: readonly string[]): Promise<boolean> {
  const { output, exitCode, seconds } = await run(command, RUN_TIMEOUT_MS);
  if (exitCode !== 0) console.log(output);
  console.log(`${exitCode === 0 ? "ok  " : "FAIL"} ${name} (${seconds.toFixed(1)} s)`);
  return exitCode === 0;
}

function testFiles(): string[] {
  const names = readdirSync(join(ROOT, "tests"), { recursive: true, encoding: "utf8" });
  return names.filter((name) => /\.test\.tsx?$/.test(name)).map((name) => `./tests/${name}`).sort();
}

/** Files that start servers run alone, first; the others in bunches of one folder. */
function groups(files: readonly string[]): string[][] {
  const alone = files.filter((file) => file.endsWith(".pg.test.ts") || file.startsWith("./tests/end-to-end/"));
  const byFolder = Map.groupBy(files.filter((file) => !alone.includes(file)), (file) => file.split("/").slice(0, 3).join("/"));
  const bunches: string[][] = [];
  for (const bunch of byFolder.values()) {
    for (let at = 0; at < bunch.length; at += MAX_FILES_A_RUN) bunches.push(bunch.slice(at, at + MAX_FILES_A_RUN));
  }
  return [...alone.map((file) => [file]), ...bunches.sort((a, b) => b.length - a.length)];
}

function nameOf(files: readonly string[]): string {
  return files.length === 1 ? files[0].slice(2) : `${files[0].slice(2)} and ${files.length - 1} more`;
}

async function runTests(files: readonly string[]): Promise<Result> {
  const { output, exitCode, seconds } = await run([BUN, "test", `--timeout=${TEST_TIMEOUT_MS}`, ...files], RUN_TIMEOUT_MS);
  // The summary is the run's last block; test output before it may look alike.
  const summary = output.slice(Math.max(0, output.lastIndexOf("\nRan ") - 400));
  const count = (word: string): number => Number(summary.match(new RegExp(`^ *(\\d+) ${word}s?$`, "m"))?.[1] ?? 0);
  const complete = /^Ran \d+ tests? across \d+ files?\./m.test(summary);
  const [passed, failed, skipped] = [count("pass"), count("fail"), count("skip") + count("todo")];
  return { name: nameOf(files), passed, failed, skipped, output, seconds, died: !complete || (exitCode !== 0 && failed === 0) };
}

function report(result: Result): void {
  const bad = result.died || result.failed > 0;
  if (bad) console.log(result.output);
  const skips = result.skipped > 0 ? `, ${result.skipped} skipped` : "";
  const verdict = result.died ? "DIED" : bad ? "FAIL" : "ok  ";
  console.log(`${verdict} ${result.name}: ${result.passed} passed, ${result.failed} failed${skips} (${result.seconds.toFixed(1)} s)`);
}

async function runAll(all: readonly string[][]): Promise<Result[]> {
  const waiting = [...all];
  const results: Result[] = [];
  const worker = async (): Promise<void> => {
    for (let files = waiting.shift(); files !== undefined; files = waiting.shift()) {
      const result = await runTests(files);
      report(result);
      results.push(result);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  return results;
}

async function prepare(): Promise<number> {
  if (!(await step("install", [BUN, "install", "--frozen-lockfile"]))) return Number.NaN;
  rmSync(join(ROOT, "dist"), { recursive: true, force: true });
  const outcomes = await Promise.all([step("typecheck", [BUN, "run", "typecheck"]), step("build", [BUN, "run", "build"])]);
  outcomes.push(await step("lint", [BUN, "run", "lint"]));
  return outcomes.filter((ok) => !ok).length;
}

async function main(filters: readonly string[]): Promise<number> {
  const failedSteps = filters.length === 0 ? await prepare() : 0;
  if (Number.isNaN(failedSteps)) {
    console.log("0 passed, 1 failed");
    return 1;
  }
  const files = testFiles().filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)));
  const results = await runAll(groups(files));
  const total = (pick: (result: Result) => number): number => results.reduce((sum, result) => sum + pick(result), 0);
  const skipped = total((result) => result.skipped);
  if (skipped > 0) console.log(`${skipped} skipped (not counted as passed)`);
  for (const result of results) if (result.died || result.failed > 0) console.log(`failed: ${result.name}`);
  // A run that died counts as one failure besides those it reported.
  const failed = failedSteps + total((result) => result.failed + (result.died ? 1 : 0)) + (files.length === 0 ? 1 : 0);
  console.log(`${total((result) => result.passed)} passed, ${failed} failed`);
  return failed > 0 ? 1 : 0;
}

process.exit(await main(process.argv.slice(2)));
