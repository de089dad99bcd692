/**
 * Log sequence numbers: a byte position in the write-ahead log.
 *
 * Inside the program an LSN is a JS number (exact below 2^53, 20 times faster than BigInt); on the wire it is a
 * u64. Decoders refuse anything at or above 2^53, except where `u64::MAX` is a sentinel: there they return
 * `LSN_MAX`. Text form is PostgreSQL's `XXXXXXXX/XXXXXXXX` in upper-case hex without leading zeros.
 */
import { StrataError } from "./errors.ts";

export type Lsn = number;

/** No LSN: PostgreSQL's InvalidXLogRecPtr. */
export const LSN_INVALID: Lsn = 0;
/** Stands for u64::MAX on the wire ("latest"); larger than any real LSN. */
export const LSN_MAX: Lsn = Number.MAX_SAFE_INTEGER;

const U32 = 0x1_0000_0000;
const U64_MAX = 0xffff_ffff_ffff_ffffn;

export function lsnToString(lsn: Lsn): string {
  if (lsn === LSN_MAX) return "FFFFFFFF/FFFFFFFF";
  return `${Math.floor(lsn / U32).toString(16).toUpperCase()}/${(lsn >>> 0).toString(16).toUpperCase()}`;
}

/** Parses `X/X`. @throws StrataError fix-input `bad-lsn` */
export function parseLsn(text: string): Lsn {
  const match = /^([0-9a-fA-F]{1,8})\/([0-9a-fA-F]{1,8})$/.exec(text);
  if (match === null) throw new StrataError("fix-input", "bad-lsn", `"${text}" is not an LSN of the form 0/16B3748`);
  const high = Number.parseInt(match[1] as string, 16);
  const low = Number.parseInt(match[2] as string, 16);
  if (high === U32 - 1 && low === U32 - 1) return LSN_MAX;
  if (high >= 2 ** 21) throw new StrataError("fix-input", "bad-lsn", `LSN "${text}" is beyond the supported range (2^53)`);
  return high * U32 + low;
}

/** Both halves of a u64 LSN. u64::MAX gives `LSN_MAX`. @throws StrataError fix-input `bad-lsn` at 2^53 and above */
export function lsnFromHalves(high: number, low: number): Lsn {
  if (high < 2 ** 21) return high * U32 + low;
  if (high === U32 - 1 && low === U32 - 1) return LSN_MAX;
  throw new StrataError("fix-input", "bad-lsn", `LSN ${high.toString(16)}/${low.toString(16)} is beyond the supported range (2^53)`);
}

export function lsnToBigInt(lsn: Lsn): bigint {
  return lsn === LSN_MAX ? U64_MAX : BigInt(lsn);
}

/** The 32-bit halves of the wire form. */
export function lsnHigh(lsn: Lsn): number {
  return lsn === LSN_MAX ? U32 - 1 : Math.floor(lsn / U32);
}

export function lsnLow(lsn: Lsn): number {
  return lsn === LSN_MAX ? U32 - 1 : lsn >>> 0;
}

/** Rounds up to a multiple of 8, PostgreSQL's MAXALIGN. */
export function lsnAlign(lsn: Lsn): Lsn {
  return Math.ceil(lsn / 8) * 8;
}
