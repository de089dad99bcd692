/** RFC 3339 times in UTC, to the microsecond: as fine as PostgreSQL's timestamps, and finer than a Date. */
import { parsedString } from "../../http/params.ts";
import { StrataError } from "../../kit/errors.ts";

const RFC_3339_UTC = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z$/;
/** 2000-01-01 in Unix microseconds: where PostgreSQL's count begins. */
const POSTGRES_EPOCH_MICROS = 946_684_800_000_000n;

/** Microseconds since 1970; what is finer is cut off. @throws StrataError fix-input `bad-timestamp` */
export function parseTimestamp(text: string): bigint {
  const [, seconds, fraction = ""] = RFC_3339_UTC.exec(text) ?? [];
  const timeMs = seconds === undefined ? Number.NaN : Date.parse(`${seconds}Z`);
  // Days that a month does not have would become days of the next.
  if (Number.isNaN(timeMs) || new Date(timeMs).toISOString().slice(0, 19) !== seconds) throw new StrataError("fix-input", "bad-timestamp", `"${text}" is not an RFC 3339 time in UTC`);
  return BigInt(timeMs) * 1000n + BigInt(fraction.padEnd(6, "0").slice(0, 6));
}

export const timestampText = parsedString(parseTimestamp, "RFC 3339 time in UTC, such as 2026-01-31T12:00:00Z");

/** Milliseconds and microseconds only where there are some. */
export function formatTimestamp(unixMicros: bigint): string {
  const fraction = ((unixMicros % 1_000_000n) + 1_000_000n) % 1_000_000n;
  const seconds = new Date(Number((unixMicros - fraction) / 1000n)).toISOString().slice(0, 19);
  if (fraction === 0n) return `${seconds}Z`;
  const digits = String(fraction).padStart(6, "0");
  return `${seconds}.${digits.endsWith("000") ? digits.slice(0, 3) : digits}Z`;
}

export function toPostgresTimestamp(unixMicros: bigint): bigint {
  return unixMicros - POSTGRES_EPOCH_MICROS;
}

export function fromPostgresTimestamp(timestamp: bigint): bigint {
  return timestamp + POSTGRES_EPOCH_MICROS;
}
