/** Parsers of option values. Each throws StrataError fix-input saying what it wanted. */
import { StrataError } from "../../kit/errors.ts";

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

export function text(value: string): string {
  return value;
}

/** An empty path means none, as with the peer's flags. */
export function optionalPath(value: string): string | null {
  return value === "" ? null : value;
}

export function integer(min: number, max: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (!/^\d+$/.test(value) || number < min || number > max) throw new StrataError("fix-input", "usage", `"${value}" is not a whole number from ${min} to ${max}`);
    return number;
  };
}

/** `host:port`; port 0 means any free one. */
export function hostPort(value: string): HostPort {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(value);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) throw new StrataError("fix-input", "usage", `"${value}" is not of the form host:port`);
  return { host: (match[1] ?? match[2]) as string, port };
}

export function oneOf<T extends string>(...allowed: readonly T[]): (value: string) => T {
  return (value) => {
    const found = allowed.find((one) => one === value);
    if (found === undefined) throw new StrataError("fix-input", "usage", `"${value}" is none of ${allowed.join(", ")}`);
    return found;
  };
}

/** A PostgreSQL major version we run: 14 to 17. */
export function pgMajor(value: string): 14 | 15 | 16 | 17 {
  return Number(oneOf("14", "15", "16", "17")(value)) as 14 | 15 | 16 | 17;
}

/** `name=value` of a postgresql.conf setting. */
export function setting(value: string): readonly [string, string] {
  const match = /^([a-z_][a-z0-9_.]*)=(.*)$/i.exec(value);
  if (match === null) throw new StrataError("fix-input", "usage", `"${value}" is not of the form name=value`);
  return [match[1] as string, match[2] as string];
}

const SIZE_UNITS: Readonly<Record<string, number>> = { "": 1024 ** 2, B: 1, kB: 1024, MB: 1024 ** 2, GB: 1024 ** 3, TB: 1024 ** 4 };

/** A size as postgresql.conf has it, `500MB`; without a unit in megabytes. Bytes; null, for no limit, from 0 and -1. */
export function sizeLimit(value: string): number | null {
  const match = /^(-1|\d{1,12})\s*(|B|kB|MB|GB|TB)$/.exec(value);
  if (match === null) throw new StrataError("fix-input", "usage", `"${value}" is not a size like 500MB`);
  const number = Number(match[1]);
  return number <= 0 ? null : number * SIZE_UNITS[match[2]];
}
