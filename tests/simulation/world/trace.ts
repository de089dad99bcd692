/**
 * What happened in a run, one line an event: the last lines are kept, all of them go into a fingerprint, so that two runs of one
 * seed can be told to be the same to the last bit.
 */
import { describeError } from "../../../src/kit/errors.ts";
import type { LogFields, Logger, LogLevel } from "../../../src/observability/log.ts";

const KEPT_LINES = 80;

export class Trace {
  readonly #nowMs: () => number;
  readonly #print: ((line: string) => void) | null;
  #tail: string[] = [];
  #hash = 0x811c9dc5;
  #lines = 0;

  /** @param print receives every line as it comes */
  constructor(nowMs: () => number, print: ((line: string) => void) | null) {
    this.#nowMs = nowMs;
    this.#print = print;
  }

  get verbose(): boolean {
    return this.#print !== null;
  }

  get tail(): readonly string[] {
    return this.#tail.slice(-KEPT_LINES);
  }

  get fingerprint(): string {
    return `${(this.#hash >>> 0).toString(16).padStart(8, "0")}-${this.#lines}`;
  }

  add(who: string, what: string): void {
    const line = `${this.#nowMs().toFixed(3).padStart(10)} ${who.padEnd(8)} ${what}`;
    this.mix(line);
    this.#lines++;
    this.#tail.push(line);
    if (this.#tail.length > 2 * KEPT_LINES) this.#tail = this.#tail.slice(-KEPT_LINES);
    this.#print?.(line);
  }

  /** Into the fingerprint alone. */
  mix(text: string): void {
    this.#hash = Bun.hash.xxHash32(text, this.#hash);
  }
}

export interface LoggedEvent {
  readonly who: string;
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
}

/** The program's own log as part of the trace. */
export class TraceLogger implements Logger {
  readonly #trace: Trace;
  readonly #who: string;
  readonly #onEvent: ((event: LoggedEvent) => void) | null;

  constructor(trace: Trace, who: string, onEvent: ((event: LoggedEvent) => void) | null = null) {
    this.#trace = trace;
    this.#who = who;
    this.#onEvent = onEvent;
  }

  debug(): void {
    // Too much of it.
  }
  info(message: string, fields?: LogFields): void {
    this.#add("info", message, fields);
  }
  warn(message: string, fields?: LogFields): void {
    this.#add("warn", message, fields);
  }
  error(message: string, fields?: LogFields): void {
    this.#add("error", message, fields);
  }
  child(): Logger {
    return this;
  }

  #add(level: LogLevel, message: string, fields: LogFields = {}): void {
    const words = Object.entries(fields).map(([key, value]) => `${key}=${value instanceof Error ? describeError(value) : String(value)}`);
    this.#trace.add(this.#who, `${level === "info" ? "" : `${level.toUpperCase()} `}${message}${words.length === 0 ? "" : ` (${words.join(", ")})`}`);
    this.#onEvent?.({ who: this.#who, level, message, fields });
  }
}
