/**
 * u64 fields that we hold as numbers: terms, node ids, sizes. They start near zero and grow by one, so a value
 * at or above 2^53 can only be garbage and is refused.
 */
import type { ByteReader } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";

/** @throws StrataError fix-input `number-too-large` */
export function u64ToNumber(value: bigint, what: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new StrataError("fix-input", "number-too-large", `${what} ${value} is beyond the supported range (2^53)`);
  return Number(value);
}

export function readU64be(reader: ByteReader, what: string): number {
  return u64ToNumber(reader.u64be(), what);
}

export function readU64le(reader: ByteReader, what: string): number {
  return u64ToNumber(reader.u64le(), what);
}
