/**
 * Structured logs. One logger a role, children for what they serve (`log.child({ tenantId, timelineId })`), one
 * line an event on stderr. Log an error where it is handled, not where it passes through.
 *
 *   const log = createLogger({ role: "safekeeper", level: "info" });
 *   log.child({ tenantId }).warn("segment upload failed", { segment, error });
 */
import pino from "pino";
import { describeError, isStrataError } from "../kit/errors.ts";

export type LogFields = Readonly<Record<string, unknown>>;
export type LogLevel = "debug" | "info" | "warn" | "error";

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  /** Something an operator may have to look at. A test fails on a WARN it did not expect. */
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A logger whose lines all carry `fields` as well. */
  child(fields: LogFields): Logger;
  /** Lines written since the start, by it, its parents and all their children; absent where nobody counts. */
  readonly written?: Readonly<Record<LogLevel, number>>;
}

export interface LoggerOptions {
  readonly role: string;
  readonly level: LogLevel | "silent";
  /** `json` (one object a line) or `pretty` (one readable line). */
  readonly format?: "json" | "pretty";
  /** Receives each finished line, newline included; stderr unless given. */
  readonly write?: (line: string) => void;
  /** Wall clock of the time stamps, in milliseconds since the epoch; the system's unless given. */
  readonly wallMs?: () => number;
}

const LEVELS: readonly LogLevel[] = ["debug", "info", "warn", "error"];
const MAX_CAUSES = 16;
/** Spare lines pretty printing: what every line has anyway. */
const HEAD_FIELDS = new Set(["level", "time", "role", "msg", "error"]);

export function isLogLevel(text: string): text is LogLevel {
  return (LEVELS as readonly string[]).includes(text);
}

export function createLogger(options: LoggerOptions): Logger {
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  const pretty = options.format === "pretty";
  const wallMs = options.wallMs;
  const base = pino(
    {
      level: options.level,
      base: { role: options.role },
      timestamp: wallMs === undefined ? pino.stdTimeFunctions.isoTime : () => `,"time":"${new Date(wallMs()).toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: serializeError },
    },
    { write: pretty ? (line: string) => write(prettyLine(line)) : write },
  );
  return new PinoLogger(base);
}

class PinoLogger implements Logger {
  readonly #pino: pino.Logger;
  readonly written: Record<LogLevel, number>;

  constructor(base: pino.Logger, written: Record<LogLevel, number> = { debug: 0, info: 0, warn: 0, error: 0 }) {
    this.#pino = base;
    this.written = written;
  }
  debug(message: string, fields?: LogFields): void {
    this.#write("debug", message, fields);
  }
  info(message: string, fields?: LogFields): void {
    this.#write("info", message, fields);
  }
  warn(message: string, fields?: LogFields): void {
    this.#write("warn", message, fields);
  }
  error(message: string, fields?: LogFields): void {
    this.#write("error", message, fields);
  }
  #write(level: LogLevel, message: string, fields: LogFields | undefined): void {
    if (!this.#pino.isLevelEnabled(level)) return;
    this.written[level]++;
    this.#pino[level](fields ?? {}, message);
  }
  child(fields: LogFields): Logger {
    return new PinoLogger(this.#pino.child(fields), this.written);
  }
}

export interface SerializedError {
  /** All messages of the cause chain, outermost first, joined by ": ". */
  readonly message: string;
  readonly kind?: string;
  readonly code?: string;
  readonly details?: unknown;
  /** `Name: message` of every cause below the outermost error. */
  readonly causes?: readonly string[];
  /** Only of errors nobody planned for: those that are not operating errors. */
  readonly stack?: string;
}

/** The form of an `error` field: never throws, never loses a cause. */
export function serializeError(error: unknown): SerializedError {
  const message = describeError(error);
  const causes = causesOf(error);
  const chain = causes.length === 0 ? {} : { causes };
  if (isStrataError(error)) {
    const details = Object.keys(error.details).length === 0 ? {} : { details: error.details };
    return { message, kind: error.kind, code: error.code, ...details, ...chain };
  }
  const stack = error instanceof Error && error.name !== "Cancelled" && error.stack !== undefined ? { stack: error.stack } : {};
  return { message, ...chain, ...stack };
}

function causesOf(error: unknown): string[] {
  const causes: string[] = [];
  let current: unknown = error instanceof Error ? error.cause : undefined;
  while (current !== undefined && current !== null && causes.length < MAX_CAUSES) {
    causes.push(current instanceof Error ? `${current.name}: ${current.message}` : String(current));
    current = current instanceof Error ? current.cause : undefined;
  }
  return causes;
}

/** `2026-01-02T03:04:05.678Z WARN safekeeper: message tenantId=… error="…"`, with a stack on the lines after it. */
function prettyLine(json: string): string {
  const line = JSON.parse(json) as Record<string, unknown>;
  let text = `${String(line.time)} ${String(line.level).toUpperCase().padEnd(5)} ${String(line.role)}: ${String(line.msg)}`;
  for (const [key, value] of Object.entries(line)) {
    if (!HEAD_FIELDS.has(key)) text += ` ${key}=${plainOrQuoted(value)}`;
  }
  const error = line.error as SerializedError | undefined;
  if (error === undefined) return `${text}\n`;
  if (error.code !== undefined) text += ` code=${error.code}`;
  text += ` error=${JSON.stringify(error.message)}`;
  return error.stack === undefined ? `${text}\n` : `${text}\n${error.stack}\n`;
}

function plainOrQuoted(value: unknown): string {
  return typeof value === "string" && /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value);
}
