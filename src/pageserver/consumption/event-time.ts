/**
 * Points in time as they stand in events, `2023-09-15T00:00:00.123456789Z`: UTC, with as many digits of the second as are needed, in threes.
 * Texts rather than numbers: where an event of the peer ended, to the nanosecond, the next one has to begin.
 *
 * Source: chrono's RFC 3339 form of DateTime<Utc>, which the peer's events have.
 */

export type EventTime = string & { readonly brand?: "event-time" };

const FORM = /^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(Z|[+-]\d{2}:\d{2})$/;
/** The end of the year 9999: beyond it the form has no digits. */
const MAX_MS = 253_402_300_799_999;
const NANOS_PER_MS = 1_000_000;

/** @param nanos beyond the whole millisecond, below a million */
export function eventTime(wallMs: number, nanos = 0): EventTime {
  const ms = Math.min(MAX_MS, Math.max(0, Math.floor(wallMs)));
  return `${secondOf(ms)}${fraction((ms % 1000) * NANOS_PER_MS + nanos)}Z`;
}

/** The same with a blank in the middle and the zone in letters, as it begins an idempotency key; for any nanoseconds beyond the millisecond. */
export function displayTimes(wallMs: number): (nanos: number) => string {
  const second = secondOf(Math.min(MAX_MS, Math.max(0, Math.floor(wallMs)))).replace("T", " ");
  const startNanos = (wallMs % 1000) * NANOS_PER_MS;
  return (nanos) => `${second}${fraction(startNanos + nanos)} UTC`;
}

/** Null when it is none; other zones than UTC are converted. */
export function parseEventTime(text: string): EventTime | null {
  const match = FORM.exec(text);
  if (match === null) return null;
  const [, second, digits = "", zone] = match;
  const ms = Date.parse(second + zone);
  if (!Number.isFinite(ms) || ms < 0 || ms > MAX_MS) return null;
  return `${secondOf(ms)}${fraction(Number(digits.padEnd(9, "0")))}Z`;
}

export function eventTimeMs(time: EventTime): number {
  return Date.parse(time);
}

export function laterOf(a: EventTime, b: EventTime): EventTime {
  // Of as many digits, the texts are in the order of the times.
  if (a.length === b.length) return a < b ? b : a;
  return sortable(a) < sortable(b) ? b : a;
}

function secondOf(ms: number): string {
  return new Date(ms).toISOString().slice(0, 19);
}

function fraction(nanos: number): string {
  if (nanos === 0) return "";
  const digits = String(nanos).padStart(9, "0");
  if (nanos % NANOS_PER_MS === 0) return `.${digits.slice(0, 3)}`;
  return `.${nanos % 1000 === 0 ? digits.slice(0, 6) : digits}`;
}

function sortable(time: EventTime): string {
  return time.slice(0, 19) + time.slice(20, -1).padEnd(9, "0");
}
