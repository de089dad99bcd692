/** A program that is broken off ends what it started and removes its directory, however the signal comes. */
import { expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isRunning, killTree, processTree } from "../src/cli/dev/process-tree.ts";

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (await holds()) return;
    await Bun.sleep(50);
  }
  throw new Error(`in vain: ${what}`);
}

/** As someone at a terminal, or `kill`, would break off a benchmark once its safekeeper runs. */
async function breakOff(send: (pid: number) => void): Promise<{ readonly code: number; readonly left: readonly string[]; readonly running: number }> {
  const directory = mkdtempSync(join(tmpdir(), "strata-run-program-"));
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "run-program.ts"), "bench", "append"], { stdin: "ignore", stdout: "ignore", stderr: "inherit", detached: true, env: { ...process.env, TMPDIR: directory } });
  try {
    const benchDirectory = (): readonly string[] => readdirSync(directory).filter((name) => name.startsWith("strata-bench-"));
    let started: number[] = [];
    await until("the benchmark's safekeeper", async () => {
      started = await processTree(child.pid);
      return started.length >= 3 && benchDirectory().length === 1;
    });
    send(child.pid);
    const code = await child.exited;
    const running = (await Promise.all(started.map((pid) => isRunning(pid)))).filter(Boolean).length;
    return { code, left: benchDirectory(), running };
  } finally {
    await killTree(child.pid);
    rmSync(directory, { recursive: true, force: true });
  }
}

test("a lone SIGINT is passed on", async () => {
  expect(await breakOff((pid) => process.kill(pid, "SIGINT"))).toEqual({ code: 130, left: [], running: 0 });
}, 60_000);

test("Ctrl-C, which goes to the whole group, is one signal to the program", async () => {
  expect(await breakOff((pid) => process.kill(-pid, "SIGINT"))).toEqual({ code: 130, left: [], running: 0 });
}, 60_000);

test("SIGTERM is passed on", async () => {
  expect(await breakOff((pid) => process.kill(pid, "SIGTERM"))).toEqual({ code: 143, left: [], running: 0 });
}, 60_000);
