import { expect, test } from "bun:test";
import { isStrataError } from "../../src/kit/errors.ts";
import { freePort } from "../../src/platform/free-port.ts";
import { isProcessAlive, signalProcess, startProcess } from "../../src/platform/processes.ts";

function shell(script: string, extra: { ownGroup?: boolean; user?: { uid: number; gid: number }; env?: Record<string, string> } = {}) {
  const out: string[] = [];
  const err: string[] = [];
  const child = startProcess({ command: "/bin/sh", args: ["-c", script], onStdoutLine: (line) => out.push(line), onStderrLine: (line) => err.push(line), ...extra });
  return { child, out, err };
}

async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await Bun.sleep(10);
  expect(condition()).toBe(true);
}

test("output arrives in lines, all of it before the exit", async () => {
  const { child, out, err } = shell("echo one; printf 'two\\nthree'; echo oops >&2; exit 3");
  expect(await child.exited).toEqual({ exitCode: 3, signal: null });
  expect([out, err]).toEqual([["one", "two", "three"], ["oops"]]);
});

test("environment and user are the ones given", async () => {
  const { child, out } = shell("id -u; echo $ONLY; echo ${HOME-none}", { env: { ONLY: "x", PATH: "/usr/bin:/bin" }, ...(process.getuid?.() === 0 ? { user: { uid: 65534, gid: 65534 } } : {}) });
  await child.exited;
  expect(out).toEqual([String(process.getuid?.() === 0 ? 65534 : process.getuid?.()), "x", "none"]);
});

test("stopping is polite first", async () => {
  const polite = shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done");
  await until(() => polite.out.includes("up"));
  expect(await polite.child.stop({ graceMs: 5000 })).toEqual({ exitCode: 0, signal: null });
  expect(polite.out).toEqual(["up", "bye"]);
  const stubborn = shell("trap '' TERM; echo up; while :; do sleep 0.05; done");
  await until(() => stubborn.out.includes("up"));
  expect(await stubborn.child.stop({ graceMs: 50 })).toEqual({ exitCode: null, signal: "SIGKILL" });
});

test("a group is stopped with all its members", async () => {
  const { child, out } = shell("sleep 30 & echo $!; wait", { ownGroup: true });
  await until(() => out.length === 1);
  const grandchild = Number(out[0]);
  expect(isProcessAlive(grandchild)).toBe(true);
  await child.stop({ graceMs: 2000, name: "SIGKILL" });
  await until(() => !isProcessAlive(grandchild) || !isRunning(grandchild));
});

test("a program that is not there, a process that has gone", async () => {
  try {
    startProcess({ command: "/no/such/program" });
    throw new Error("started");
  } catch (error) {
    expect(isStrataError(error, "cannot-start-process")).toBe(true);
  }
  const { child } = shell("exit 0");
  await child.exited;
  child.signal("SIGTERM");
  signalProcess(child.pid, "SIGTERM");
});

test("a free port can be listened on", () => {
  const port = freePort();
  Bun.listen({ hostname: "127.0.0.1", port, socket: { data: () => {} } }).stop(true);
});

/** Not a zombie: an orphan may wait for init to collect it. */
function isRunning(pid: number): boolean {
  const result = Bun.spawnSync(["sh", "-c", `cut -d' ' -f3 /proc/${pid}/stat`]);
  const state = result.stdout.toString().trim();
  return state !== "" && state !== "Z";
}
