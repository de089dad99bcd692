/**
 * One role kept running: started again, with growing pauses, when it ends by itself, until `stop`. How it runs, as a process
 * of its own or inside this one, is its launcher's affair.
 */
import type { Logger } from "../../observability/log.ts";
import type { Clock, Timer } from "../../platform/clock.ts";

export interface Launched {
  /** Null for a role inside this process. */
  readonly pid: number | null;
  /** Settles when it has ended: how, in words. Never rejects. */
  readonly ended: Promise<string>;
  /** Asks it to stop and waits for its end. */
  stop(): Promise<void>;
}

/** @param onLine gets each line it prints or logs */
export type Launch = (onLine: (line: string) => void) => Launched;

export interface ChildSpec {
  readonly name: string;
  readonly launch: Launch;
  readonly onLine: (name: string, line: string) => void;
}

const RESTART_PAUSE_MIN_MS = 200;
const RESTART_PAUSE_MAX_MS = 10_000;
/** Running this long counts as having started well: the next pause is short again. */
const STEADY_MS = 20_000;
/** Lines kept to say why a role does not start. */
const TAIL_LINES = 20;

export class Child {
  readonly spec: ChildSpec;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #tail: string[] = [];
  #running: Launched | null = null;
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
    return this.#running?.pid ?? null;
  }

  get isRunning(): boolean {
    return this.#running !== null;
  }

  /** How often it has ended without being asked to. */
  get unexpectedExits(): number {
    return this.#exits;
  }

  start(): void {
    const startedMs = this.#clock.monotonicMs();
    this.#running = this.spec.launch((line) => {
      this.#tail.push(line);
      if (this.#tail.length > TAIL_LINES) this.#tail.shift();
      this.spec.onLine(this.spec.name, line);
    });
    void this.#running.ended.then((how) => this.#ended(how, startedMs));
  }

  #ended(how: string, startedMs: number): void {
    this.#running = null;
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
    await this.#running?.stop();
  }
}
