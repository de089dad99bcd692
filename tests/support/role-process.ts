/** One role as a child process whose every end is in the hands of the test: killed, stopped, started again. */
import { openSync, closeSync, existsSync, readFileSync } from "node:fs";
import { killTree, processTree } from "../../src/cli/dev/process-tree.ts";
import { signalProcess } from "../../src/platform/processes.ts";

export interface RoleProcessOptions {
  readonly name: string;
  /** Program and arguments. */
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly logPath: string;
  /** Answers 200 when the role is ready. */
  readonly readyUrl: string;
  readonly accept?: (reply: Response) => Promise<boolean>;
}

const POLL_MS = 25;
const STOP_TIMEOUT_MS = 60_000;
const LOG_TAIL_LINES = 25;

export class RoleProcess {
  readonly name: string;
  readonly #options: RoleProcessOptions;
  #child: Bun.Subprocess | null = null;

  constructor(options: RoleProcessOptions) {
    this.name = options.name;
    this.#options = options;
  }

  get running(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** It was started, not stopped by us, and is gone. */
  get endedByItself(): boolean {
    return this.#child !== null && !this.running;
  }

  get pid(): number | null {
    return this.running ? (this.#child?.pid ?? null) : null;
  }

  start(): void {
    if (this.running) return;
    const log = openSync(this.#options.logPath, "a");
    try {
      this.#child = Bun.spawn([...this.#options.command], { stdin: "ignore", stdout: log, stderr: log, env: { ...process.env, ...this.#options.environment } });
    } finally {
      closeSync(log);
    }
  }

  /** @throws Error with the end of its log when it ends or is not ready in time */
  async waitReady(timeoutMs: number): Promise<void> {
    const deadlineMs = performance.now() + timeoutMs;
    const accept = this.#options.accept ?? (async (reply: Response) => reply.ok);
    for (;;) {
      const reply = await fetch(this.#options.readyUrl, { signal: AbortSignal.timeout(5_000) }).catch(() => null);
      if (reply !== null && (await accept(reply))) return;
      if (!this.running) throw new Error(`${this.name} ended (${this.#child?.exitCode ?? this.#child?.signalCode}) instead of getting ready:\n${this.tail()}`);
      if (performance.now() > deadlineMs) throw new Error(`${this.name} is not ready after ${timeoutMs} ms:\n${this.tail()}`);
      await Bun.sleep(POLL_MS);
    }
  }

  /** kill -9 of this process alone; what it started stays. */
  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    child?.kill("SIGKILL");
    await child?.exited;
  }

  /** kill -9 of it and of all that it started. */
  async killTree(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null) return;
    await killTree(child.pid);
    await child.exited;
  }

  /** Ids of the processes it started, to be ended when it alone was killed. */
  async descendants(): Promise<number[]> {
    const pid = this.pid;
    return pid === null ? [] : (await processTree(pid)).filter((one) => one !== pid);
  }

  /** SIGTERM, and waits for its end. @returns exit code */
  async stop(): Promise<number> {
    const child = this.#child;
    this.#child = null;
    if (child === null) return 0;
    signalProcess(child.pid, "SIGTERM");
    const late = setTimeout(() => void killTree(child.pid), STOP_TIMEOUT_MS);
    const code = await child.exited;
    clearTimeout(late);
    return code;
  }

  log(): string {
    return existsSync(this.#options.logPath) ? readFileSync(this.#options.logPath, "utf8") : "";
  }

  tail(): string {
    return this.log().split("\n").slice(-LOG_TAIL_LINES).join("\n");
  }
}
