/**
 * Weighted stacks as the pprof tool reads them: gzipped github.com/google/pprof proto/profile.proto, through the pprof package's own
 * message types and encoder.
 */
import { encodeSync } from "pprof/out/src/profile-encoder.js";
import { perftools } from "pprof/proto/profile.js";

export interface ProfileFrame {
  readonly name: string;
  readonly file: string;
  /** From 1; 0 when unknown. */
  readonly line: number;
}

export interface WeightedStack {
  /** The innermost frame first. */
  readonly frames: readonly ProfileFrame[];
  /** One for each of the profile's sample types. */
  readonly values: readonly number[];
}

export interface ValueType {
  readonly type: string;
  readonly unit: string;
}

export interface StackProfile {
  readonly sampleTypes: readonly ValueType[];
  readonly stacks: readonly WeightedStack[];
  readonly periodType: ValueType;
  readonly period: number;
  /** Since the epoch. */
  readonly startedMs: number;
  readonly durationMs: number;
}

/** Numbers distinct values from `first` on, in the order they come. */
class Numbering<T> {
  readonly values: T[] = [];
  readonly #numbers = new Map<string, number>();
  readonly #first: number;

  constructor(first: number) {
    this.#first = first;
  }

  of(key: string, value: T): number {
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    const number = this.#first + this.values.length;
    this.#numbers.set(key, number);
    this.values.push(value);
    return number;
  }
}

/** Ids of functions and locations begin at 1; strings are numbers into the table, whose first entry is empty. */
export function encodeProfile(profile: StackProfile): Uint8Array {
  const strings = new Numbering<string>(0);
  const text = (value: string): number => strings.of(value, value);
  text("");
  const functions = new Numbering<ProfileFrame>(1);
  const locations = new Numbering<{ readonly functionId: number; readonly line: number }>(1);
  const valueType = ({ type, unit }: ValueType) => ({ type: text(type), unit: text(unit) });
  const sampleType = profile.sampleTypes.map(valueType);
  const periodType = valueType(profile.periodType);
  const sample = profile.stacks.map(({ frames, values }) => ({
    locationId: frames.map((frame) => {
      const functionId = functions.of(`${frame.name}\0${frame.file}`, frame);
      return locations.of(`${functionId}:${frame.line}`, { functionId, line: frame.line });
    }),
    value: [...values],
  }));
  return encodeSync(
    perftools.profiles.Profile.create({
      sampleType,
      sample,
      location: locations.values.map(({ functionId, line }, index) => ({ id: index + 1, line: [{ functionId, line }] })),
      function: functions.values.map(({ name, file }, index) => ({ id: index + 1, name: text(name), systemName: text(name), filename: text(file) })),
      stringTable: strings.values,
      timeNanos: Math.round(profile.startedMs) * 1e6,
      durationNanos: Math.round(profile.durationMs * 1e6),
      periodType,
      period: profile.period,
    }),
  );
}
