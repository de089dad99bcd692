/** The executable as it is shipped: built here, started where its surroundings could lead it astray. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "../..");
const directory = mkdtempSync(join(tmpdir(), "strata-executable-"));
const executable = join(directory, "strata");

function run(command: readonly string[], cwd = directory): { stdout: string; stderr: string; exitCode: number } {
  const result = Bun.spawnSync([...command], { cwd, stdin: "ignore" });
  return { stdout: result.stdout.toString(), stderr: result.stderr.toString(), exitCode: result.exitCode };
}

beforeAll(() => {
  const built = run([process.execPath, join(ROOT, "build.ts"), executable], ROOT);
  expect(built.stderr + built.stdout, "the build").toContain(executable);
}, 120_000);

afterAll(() => rmSync(directory, { recursive: true, force: true }));

test("its version names the source revision", () => {
  const { stdout, exitCode } = run([executable, "--version"]);
  expect(exitCode).toBe(0);
  const head = run(["git", "rev-parse", "HEAD"], ROOT).stdout.trim();
  expect(stdout).toMatch(/^strata \d+\.\d+\.\d+ git:\S+\n$/);
  if (head !== "") expect(stdout).toContain(` git:${head}`);
});

test("it ignores the configuration files of the directory it is started in", () => {
  writeFileSync(join(directory, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
  writeFileSync(join(directory, "preload.ts"), 'console.log("preloaded");\n');
  writeFileSync(join(directory, ".env"), "BUN_OPTIONS=--print=1\n");
  writeFileSync(join(directory, "tsconfig.json"), "{ not json");
  writeFileSync(join(directory, "package.json"), "{ not json");
  expect(run([executable, "--version"])).toEqual({ stdout: expect.stringMatching(/^strata /), stderr: "", exitCode: 0 });
});

test("an unknown command or role is a usage error, every role has help, and symlinks choose it", () => {
  expect(run([executable, "no-such-command"]).exitCode).toBe(2);
  expect(run([executable, "--role", "no-such-role"]).exitCode).toBe(2);
  for (const [role, link] of [["broker", "storage_broker"], ["controller", "storage_controller"], ["safekeeper", "safekeeper"], ["pageserver", "pageserver"]] as const) {
    const help = run([executable, "--role", role, "--help"]);
    expect([role, help.exitCode, help.stdout.includes("Options:")]).toEqual([role, 0, true]);
    symlinkSync(executable, join(directory, link));
    expect([link, run([join(directory, link), "--help"]).stdout]).toEqual([link, help.stdout]);
  }
});
