/** Error kinds to SQLSTATE and back: the one place where the libpq boundary maps them. */
import { Cancelled, type ErrorKind, StrataError, describeError } from "../kit/errors.ts";

export interface PgErrorFields {
  readonly severity: string;
  readonly sqlState: string;
  readonly message: string;
  readonly detail?: string;
  readonly hint?: string;
}

const BY_KIND: Readonly<Record<ErrorKind, string>> = {
  retry: "40001",
  "fix-input": "22023",
  "not-found": "42704",
  conflict: "55006",
  corrupt: "XX001",
  unavailable: "57P03",
  unauthenticated: "28P01",
  forbidden: "42501",
};

/** Codes for which PostgreSQL has a state of its own, sharper than the kind's. */
const BY_CODE: Readonly<Record<string, string>> = {
  "protocol-violation": "08P01",
  "copy-failed": "57014",
  "query-canceled": "57014",
  "syntax-error": "42601",
  "not-supported": "0A000",
  "disk-full": "53100",
  "too-many-connections": "53300",
};

const INTERNAL_ERROR = "XX000";
const ADMIN_SHUTDOWN = "57P01";

/** SQLSTATE of any thrown value; `details.sqlState` of a StrataError has the last word. */
export function sqlStateOf(error: unknown): string {
  if (error instanceof Cancelled) return ADMIN_SHUTDOWN;
  if (!(error instanceof StrataError)) return INTERNAL_ERROR;
  const own = error.details.sqlState;
  if (typeof own === "string" && /^[0-9A-Z]{5}$/.test(own)) return own;
  return BY_CODE[error.code] ?? BY_KIND[error.kind];
}

/** What an ErrorResponse says of any thrown value. */
export function errorFields(error: unknown, severity: "ERROR" | "FATAL"): PgErrorFields {
  return { severity, sqlState: sqlStateOf(error), message: describeError(error) };
}

const KIND_BY_STATE: Readonly<Record<string, ErrorKind>> = {
  "42501": "forbidden",
  "42704": "not-found",
  "42P01": "not-found",
  "3D000": "not-found",
  "55006": "conflict",
  "42710": "conflict",
  "42P04": "conflict",
  "42P07": "conflict",
  "23505": "conflict",
  "57014": "retry",
  "55P03": "retry",
  XX001: "corrupt",
  XX002: "corrupt",
};

const KIND_BY_CLASS: Readonly<Record<string, ErrorKind>> = {
  "08": "unavailable",
  "28": "unauthenticated",
  "40": "retry",
  "53": "unavailable",
  "57": "unavailable",
  "58": "unavailable",
  XX: "unavailable",
};

/**
 * An ErrorResponse as a StrataError: code `server-error`, the state in `details.sqlState`, the severity in
 * `details.severity`, DETAIL and HINT under their names.
 */
export function errorFromServer(fields: PgErrorFields): StrataError {
  const kind = KIND_BY_STATE[fields.sqlState] ?? KIND_BY_CLASS[fields.sqlState.slice(0, 2)] ?? "fix-input";
  const { severity, sqlState, detail, hint, message } = fields;
  return new StrataError(kind, "server-error", message, { details: { severity, sqlState, detail, hint } });
}
