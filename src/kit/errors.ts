/**
 * The three kinds of failure this project knows.
 *
 * - `InvariantError`: a bug of ours. Fail loudly, never catch and go on.
 * - `StrataError`: an operating error with a stable `code` and a `kind` that says what to do about it.
 * - `Cancelled`: somebody asked for the work to stop.
 *
 * Each boundary (HTTP, libpq, gRPC, exit code) maps kinds to its own codes in one place.
 */
export type ErrorKind = "retry" | "fix-input" | "not-found" | "conflict" | "corrupt" | "unavailable" | "unauthenticated" | "forbidden";

export type ErrorDetails = Readonly<Record<string, string | number | boolean | undefined>>;

export class StrataError extends Error {
  readonly code: string;
  readonly kind: ErrorKind;
  readonly details: ErrorDetails;

  /**
   * Positional parameters on purpose: kind and code are told apart by their types, and every throw names all three.
   * @param code stable kebab-case identifier, part of the operator's interface
   */
  constructor(kind: ErrorKind, code: string, message: string, options: { cause?: unknown; details?: ErrorDetails } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "StrataError";
    this.kind = kind;
    this.code = code;
    this.details = options.details ?? {};
  }
}

export class InvariantError extends Error {
  constructor(message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.name = "InvariantError";
  }
}

export class Cancelled extends Error {
  constructor(reason = "cancelled") {
    super(reason);
    this.name = "Cancelled";
  }
}

/** Throws `InvariantError` when `condition` does not hold. Always on. */
export function invariant(condition: boolean, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}

export function isStrataError(error: unknown, code?: string): error is StrataError {
  return error instanceof StrataError && (code === undefined || error.code === code);
}

/** One line with the whole cause chain, outermost first, joined by ": ". */
export function describeError(error: unknown): string {
  const parts: string[] = [];
  let current: unknown = error;
  for (let depth = 0; current !== undefined && current !== null && depth < 16; depth++) {
    parts.push(current instanceof Error ? current.message : String(current));
    current = current instanceof Error ? current.cause : undefined;
  }
  return parts.join(": ");
}
