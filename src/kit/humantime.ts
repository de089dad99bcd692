/**
 * Durations as people and the peer's configuration write them: `1h 30m`, `250ms`, `7 days`. The units and their names are
 * those of Rust's humantime crate, which the peer's files, flags and JSON use; a month is 30.44 days, a year 365.25.
 */
import { StrataError } from "./errors.ts";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const MONTH = 2_630_016 * SECOND;
const YEAR = 31_557_600 * SECOND;

const UNIT_MS: Readonly<Record<string, number>> = Object.fromEntries(
  (
    [
      [["nsec", "ns", "nanos"], 1e-6],
      [["usec", "us", "µs", "micros"], 1e-3],
      [["msec", "ms", "millis"], 1],
      [["seconds", "second", "secs", "sec", "s"], SECOND],
      [["minutes", "minute", "mins", "min", "m"], MINUTE],
      [["hours", "hour", "hrs", "hr", "h"], HOUR],
      [["days", "day", "d"], DAY],
      [["weeks", "week", "wks", "wk", "w"], 7 * DAY],
      [["months", "month", "M"], MONTH],
      [["years", "year", "yrs", "yr", "y"], YEAR],
    ] as const
  ).flatMap(([names, ms]) => names.map((name) => [name, ms])),
);

const FORMAT_UNITS: readonly (readonly [string, number])[] = [
  ["year", YEAR],
  ["month", MONTH],
  ["day", DAY],
  ["h", HOUR],
  ["m", MINUTE],
  ["s", SECOND],
  ["ms", 1],
  ["us", 1e-3],
  ["ns", 1e-6],
];

/** Milliseconds. A bare `0` is allowed, any other number needs a unit. @throws StrataError fix-input `bad-duration` */
export function parseDuration(text: string): number {
  const trimmed = text.trim();
  if (trimmed === "0") return 0;
  const pattern = /\s*(\d{1,18})\s*([A-Za-zµ]+)/y;
  let totalMs = 0;
  while (pattern.lastIndex < trimmed.length) {
    const match = pattern.exec(trimmed);
    const unitMs = match === null || !Object.hasOwn(UNIT_MS, match[2]) ? undefined : UNIT_MS[match[2]];
    if (match === null || unitMs === undefined) throw badDuration(text);
    totalMs += Number(match[1]) * unitMs;
  }
  if (trimmed === "" || !Number.isSafeInteger(Math.floor(totalMs))) throw badDuration(text);
  return totalMs;
}

/** `1day 2h 250ms`; `0s` for nothing. Parts below a nanosecond are dropped. */
export function formatDuration(durationMs: number): string {
  const parts: string[] = [];
  // Whole milliseconds and nanoseconds apart: a fraction of a large number of milliseconds is not exact.
  let wholeMs = Math.floor(durationMs);
  let nanos = Math.round((durationMs - wholeMs) * 1e6);
  if (nanos >= 1_000_000) {
    wholeMs++;
    nanos = 0;
  }
  for (const [name, unitMs] of FORMAT_UNITS) {
    const unit = unitMs >= 1 ? unitMs : Math.round(unitMs * 1e6);
    const rest = unitMs >= 1 ? wholeMs : nanos;
    const count = Math.floor(rest / unit);
    if (count === 0) continue;
    const plural = name.length > 2 && count > 1 ? "s" : "";
    parts.push(`${count}${name}${plural}`);
    if (unitMs >= 1) wholeMs -= count * unit;
    else nanos -= count * unit;
  }
  return parts.length === 0 ? "0s" : parts.join(" ");
}

function badDuration(text: string): StrataError {
  return new StrataError("fix-input", "bad-duration", `"${text}" is not a duration such as 10s, 1h 30m or 250ms`);
}
