/**
 * A logger that keeps its lines, for tests: every WARN or ERROR must have been announced with `expectWarn`, and
 * `assertQuiet()` (called by the test helper when a test ends) throws on one that was not.
 */
import { InvariantError } from "../kit/errors.ts";
import { type LogFields, type Logger, type LogLevel, serializeError } from "./log.ts";

export interface LogEntry {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
}

interface Recording {
  readonly entries: LogEntry[];
  readonly expected: RegExp[];
  readonly maxEntries: number;
}

const DEFAULT_MAX_ENTRIES = 100_000;

export class RecordingLogger implements Logger {
  readonly #recording: Recording;
  readonly #fields: LogFields;

  constructor(options: { readonly maxEntries?: number } = {}, parent?: { recording: Recording; fields: LogFields }) {
    this.#recording = parent?.recording ?? { entries: [], expected: [], maxEntries: options.maxEntries ?? DEFAULT_MAX_ENTRIES };
    this.#fields = parent?.fields ?? {};
  }

  get entries(): readonly LogEntry[] {
    return this.#recording.entries;
  }

  /** Allows WARN and ERROR lines that match: the pattern sees the message and, if there is one, the error's text. */
  expectWarn(pattern: RegExp | string): void {
    this.#recording.expected.push(typeof pattern === "string" ? new RegExp(RegExp.escape(pattern)) : pattern);
  }

  unexpected(): readonly LogEntry[] {
    return this.#recording.entries.filter((entry) => isLoud(entry) && !this.#recording.expected.some((pattern) => pattern.test(textOf(entry))));
  }

  /** @throws InvariantError naming each WARN and ERROR line that no `expectWarn` covers */
  assertQuiet(): void {
    const loud = this.unexpected();
    if (loud.length > 0) throw new InvariantError(`unexpected log lines:\n${loud.map((entry) => `  ${entry.level.toUpperCase()} ${textOf(entry)}`).join("\n")}`);
  }

  debug(message: string, fields?: LogFields): void {
    this.#add("debug", message, fields);
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
  child(fields: LogFields): Logger {
    return new RecordingLogger({}, { recording: this.#recording, fields: { ...this.#fields, ...fields } });
  }

  #add(level: LogLevel, message: string, fields?: LogFields): void {
    const entries = this.#recording.entries;
    // Loud lines are never thinned out: losing one would let a test pass that should fail.
    if (entries.length >= this.#recording.maxEntries && (level === "debug" || level === "info")) return;
    entries.push({ level, message, fields: { ...this.#fields, ...fields } });
  }
}

function isLoud(entry: LogEntry): boolean {
  return entry.level === "warn" || entry.level === "error";
}

function textOf(entry: LogEntry): string {
  const error = entry.fields.error;
  return error === undefined ? entry.message : `${entry.message}: ${serializeError(error).message}`;
}
