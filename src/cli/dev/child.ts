/**
 * One role as a child process that is kept running: started again, with growing pauses, when it ends by itself, until
 * `stop`. Its log goes, line by line, to the supervisor's.
 */
import { StrataError } from "../../kit/errors.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock, Timer } from "../../platform/clock.ts";
import { type ChildProcess, signalProcess, startProcess } from "../../platform/processes.ts";

export interface ChildSpec {
  readonly name: string;
  /** Arguments after the program. */
  readonly args: readonly string[];
  /** The program with what comes before its arguments: the executable, or Bun and the entry file. */
  readonly program: readonly string[];
  readonly onLine: (name: string, line: string) => void;
}

const RESTART_PAUSE_MIN_MS = 200;
const RESTART_PAUSE_MAX_MS = 10_000;
/** Running this long counts as having started well: the next pause is short again. */
const STEADY_MS = 20_000;
const STOP_GRACE_MS = 30_000;
/** Lines kept to say why a role does not start. */
const TAIL_LINES = 20;

export class Child {
  readonly spec: ChildSpec;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #tail: string[] = [];
  #process: ChildProcess | null = null;
  #stopping = false;
  #pauseMs = RESTART_PAUSE_MIN_MS;
  #timer: Timer | null = null;
  #exits = 0;

  constructor(spec: ChildSpec, deps: { clock: Clock; log: Logger }) {
    this.spec = spec;
    this.#clock = deps.clock;
    this.#log = deps.log;
  }

  get pid(): number | null {
    return this.#process?.pid ?? null;
  }

  /** How often it has ended without being asked to. */
  get unexpectedExits(): number {
    return this.#exits;
  }

  start(): void {
    const [command, ...before] = this.spec.program;
    if (command === undefined) throw new StrataError("fix-input", "cannot-start-process", `${this.spec.name} has no program`);
    const startedMs = this.#clock.monotonicMs();
    const onLine = (line: string): void => {
      this.#tail.push(line);
      if (this.#tail.length > TAIL_LINES) this.#tail.shift();
      this.spec.onLine(this.spec.name, line);
    };
    // A group of its own, so that Ctrl-C in a terminal reaches the supervisor alone and the order of stopping is its own.
    this.#process = startProcess({ command, args: [...before, ...this.spec.args], env: childEnvironment(), ownGroup: true, onStdoutLine: onLine, onStderrLine: onLine });
    void this.#process.exited.then((exit) => this.#ended(exit.exitCode ?? exit.signal, startedMs));
  }

  #ended(how: number | string | null, startedMs: number): void {
    this.#process = null;
    if (this.#stopping) return;
    this.#exits++;
    if (this.#clock.monotonicMs() - startedMs > STEADY_MS) this.#pauseMs = RESTART_PAUSE_MIN_MS;
    this.#log.warn("a role ended by itself, starting it again", { role: this.spec.name, exit: how, pauseMs: this.#pauseMs });
    this.#timer = this.#clock.after(this.#pauseMs, () => this.start());
    this.#pauseMs = Math.min(RESTART_PAUSE_MAX_MS, this.#pauseMs * 2);
  }

  /** Its newest lines, for an error message. */
  tail(): string {
    return this.#tail.join("\n");
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#timer?.cancel();
    const running = this.#process;
    if (running === null) return;
    // To the role alone: it stops what it started (a PostgreSQL, say) in its own order. Only the last resort is for all.
    signalProcess(running.pid, "SIGTERM");
    const timer = this.#clock.after(STOP_GRACE_MS, () => running.signal("SIGKILL"));
    await running.exited;
    timer.cancel();
  }
}

function childEnvironment(): Record<string, string> {
  const environment: Record<string, string> = { STRATA_SUPERVISED: "1" };
  for (const [name, value] of Object.entries(process.env)) if (value !== undefined) environment[name] = value;
  return environment;
}

/** How to start this same program again: the executable alone, or Bun with the entry file. */
export function ownProgram(): string[] {
  const compiled = Bun.main.startsWith("/$bunfs/");
  return compiled ? [process.execPath] : [process.execPath, Bun.main];
}
