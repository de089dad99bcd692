/**
 * Where errors meet HTTP: kinds to status codes and back. The body is the peer's `{"msg": …}`
 * (libs/utils/src/http/error.rs); our own code and kind travel in headers, so that our clients get them back.
 */
import { Cancelled, describeError, type ErrorKind, isStrataError, StrataError } from "../kit/errors.ts";

export const ERROR_CODE_HEADER = "x-error-code";
export const ERROR_KIND_HEADER = "x-error-kind";

const STATUS_OF_KIND: Readonly<Record<ErrorKind, number>> = {
  "fix-input": 400,
  unauthenticated: 401,
  forbidden: 403,
  "not-found": 404,
  conflict: 409,
  corrupt: 500,
  retry: 503,
  unavailable: 503,
};

/** Codes that clients tell apart by their status. */
const STATUS_OF_CODE: Readonly<Record<string, number>> = {
  "ancestor-archived": 406,
  "bad-branch-lsn": 406,
  "request-timeout": 408,
  "precondition-failed": 412,
  "timeline-has-children": 412,
  "body-too-large": 413,
  "too-many-requests": 429,
  "not-implemented": 501,
};

export function statusOf(error: unknown): number {
  if (isStrataError(error)) return STATUS_OF_CODE[error.code] ?? STATUS_OF_KIND[error.kind];
  return error instanceof Cancelled ? 503 : 500;
}

/** What the caller may know: all of an operating error, but of a refused token only that it was refused. */
export function errorReply(error: unknown): Response {
  const status = statusOf(error);
  const headers: Record<string, string> = {};
  if (isStrataError(error)) {
    headers[ERROR_CODE_HEADER] = error.code;
    headers[ERROR_KIND_HEADER] = error.kind;
  }
  return Response.json({ msg: messageFor(error) }, { status, headers });
}

function messageFor(error: unknown): string {
  if (isStrataError(error, "bad-token") || isStrataError(error, "permission-denied")) return "Forbidden: JWT authentication error";
  if (error instanceof Cancelled) return "Shutting down";
  return describeError(error);
}

const KIND_OF_STATUS: Readonly<Record<number, ErrorKind>> = {
  400: "fix-input",
  401: "unauthenticated",
  403: "forbidden",
  404: "not-found",
  405: "fix-input",
  408: "retry",
  409: "conflict",
  412: "conflict",
  413: "fix-input",
  422: "fix-input",
  429: "retry",
  500: "unavailable",
  501: "fix-input",
};

const KINDS = new Set<string>(Object.keys(STATUS_OF_KIND));

/** The error a reply with a status of 400 or more stands for. Consumes the body, at most `MAX_ERROR_BODY` of it. */
export async function errorFromReply(reply: Response, what: string): Promise<StrataError> {
  const headerKind = reply.headers.get(ERROR_KIND_HEADER);
  const kind = headerKind !== null && KINDS.has(headerKind) ? (headerKind as ErrorKind) : (KIND_OF_STATUS[reply.status] ?? "unavailable");
  const code = reply.headers.get(ERROR_CODE_HEADER) ?? `http-${reply.status}`;
  const message = messageIn(await readText(reply));
  return new StrataError(kind, code, `${what}: HTTP ${reply.status}: ${message}`, { details: { status: reply.status } });
}

const MAX_ERROR_BODY = 16_384;

async function readText(reply: Response): Promise<string> {
  try {
    return (await reply.text()).slice(0, MAX_ERROR_BODY);
  } catch {
    // The status says enough; a body cut short by the peer adds nothing.
    return "";
  }
}

function messageIn(text: string): string {
  try {
    const body: unknown = JSON.parse(text);
    if (typeof body === "object" && body !== null && "msg" in body && typeof body.msg === "string") return body.msg;
  } catch {
    // Not JSON: the text itself is the message.
  }
  return text;
}
