/** Child processes of a benchmark: started, waited for, measured, killed. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../../src/platform/free-port.ts";
import { onInterrupt } from "./interrupt.ts";

const MAIN = join(import.meta.dir, "../../../src/main.ts");

export class Bench {
  readonly directory: string;
  readonly #executable: string | undefined;
  readonly #children: Bun.Subprocess[] = [];
  readonly #cleanups: (() => Promise<unknown>)[] = [];
  #ended: Promise<void> | null = null;

  constructor(name: string, executable: string | undefined) {
    this.directory = mkdtempSync(join(tmpdir(), `strata-bench-${name}-`));
    this.#executable = executable;
    onInterrupt(() => this.end());
    console.log(`load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
  }

  spawn(command: readonly string[]): Bun.Subprocess {
    const child = Bun.spawn([...command], { stdout: "ignore", stderr: Bun.file(join(this.directory, `${this.#children.length}.log`)) });
    this.#children.push(child);
    return child;
  }

  role(args: readonly string[]): Bun.Subprocess {
    return this.spawn([...(this.#executable === undefined ? [process.execPath, MAIN] : [this.#executable]), ...args]);
  }

  async safekeeper(nodeId: number, flags: readonly string[] = []): Promise<{ readonly port: number; readonly httpPort: number; readonly pid: number }> {
    const [port, httpPort] = [freePort(), freePort()];
    const directory = join(this.directory, `safekeeper-${nodeId}`);
    const child = this.role([
      "--role", "safekeeper", "--datadir", directory, "--id", String(nodeId), "--listen-pg", `127.0.0.1:${port}`, "--listen-http", `127.0.0.1:${httpPort}`, "--broker-endpoint", "", ...flags,
    ]);
    await answers(`http://127.0.0.1:${httpPort}/v1/status`);
    return { port, httpPort, pid: child.pid };
  }

  /** Done at the end, the last one first, while the processes still run. */
  onEnd(cleanup: () => Promise<unknown>): void {
    this.#cleanups.push(cleanup);
  }

  end(): Promise<void> {
    this.#ended ??= this.#end();
    return this.#ended;
  }

  async #end(): Promise<void> {
    for (const cleanup of this.#cleanups.reverse()) await cleanup().catch((error: unknown) => console.error(error));
    for (const child of this.#children) child.kill("SIGKILL");
    await Promise.all(this.#children.map((child) => child.exited));
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export async function answers(url: string): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if (await fetch(url).then((reply) => reply.ok, () => false)) return;
    await Bun.sleep(30);
  }
  throw new Error(`${url} does not answer`);
}

export function residentBytes(pid: number): number {
  const kib = Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
  return kib * 1024;
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

export function mib(bytes: number): string {
  return (bytes / (1024 * 1024)).toFixed(bytes < 10 * 1024 * 1024 ? 1 : 0);
}

/** What a figure is to reach, and whether it did: said, not enforced, since the machine has its part in it. */
export function goal(value: number, wanted: ({ readonly atLeast: number } | { readonly atMost: number }) & { readonly unit?: string }): string {
  const [sign, limit, met] = "atLeast" in wanted ? ["≥", wanted.atLeast, value >= wanted.atLeast] : ["≤", wanted.atMost, value <= wanted.atMost];
  return `(goal ${sign} ${limit}${wanted.unit ?? "×"}: ${met ? "met" : "MISSED"})`;
}
