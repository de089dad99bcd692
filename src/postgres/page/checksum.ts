/**
 * The checksum of a relation page (pd_checksum): 32 interleaved FNV-1a sums over the page as 32-bit words, folded, mixed with
 * the block number and reduced to 1–65535. Source: PostgreSQL storage/checksum_impl.h (pg_checksum_page).
 */
import { invariant } from "../../kit/errors.ts";

const PAGE_WORDS = 2048;
const SUMS = 32;
const FNV_PRIME = 16777619;
const CHECKSUM_OFFSET = 8;
/** Word 2 holds pd_checksum in its low half, which counts as zero, and pd_flags. */
const CHECKSUM_WORD = CHECKSUM_OFFSET / 4;

/** checksumBaseOffsets: where each of the sums starts. */
const SEEDS = Int32Array.of(
  0x5b1f36e9, 0xb8525960, 0x02ab50aa, 0x1de66d2a, 0x79ff467a, 0x9bb9f8a3, 0x217e7cd2, 0x83e13d2c,
  0xf8d4474f, 0xe39eb970, 0x42c6ae16, 0x993216fa, 0x7b093b5d, 0x98daff3c, 0xf718902a, 0x0b1c9cdb,
  0xe58f764b, 0x187636bc, 0x5d7b3bb1, 0xe73de7de, 0x92bec979, 0xcca6c0b2, 0x304a0979, 0x85aa43d4,
  0x783125bb, 0x6ca8eaa2, 0xe407eac6, 0x4b5cfc3e, 0x9fbf8c76, 0x15ca20be, 0xf2ca9fd3, 0x959bd756,
);

const words = new Int32Array(PAGE_WORDS);
const wordBytes = new Uint8Array(words.buffer);
const sums = new Int32Array(SUMS);

/** The checksum `page` (8192 bytes, not all zero) should carry as block `blockNumber` of its relation fork. */
export function pageChecksum(page: Uint8Array, blockNumber: number): number {
  invariant(page.length === wordBytes.length, "a page is 8192 bytes");
  wordBytes.set(page);
  words[CHECKSUM_WORD] &= ~0xffff;
  sums.set(SEEDS);
  for (let row = 0; row < PAGE_WORDS; row += SUMS) {
    for (let column = 0; column < SUMS; column++) sums[column] = step(sums[column], words[row + column]);
  }
  let folded = 0;
  for (let column = 0; column < SUMS; column++) folded ^= step(step(sums[column], 0), 0);
  return (((folded ^ blockNumber) >>> 0) % 65535) + 1;
}

/** Writes the checksum into the page, or zero when the cluster has none. */
export function setPageChecksum(page: Uint8Array, blockNumber: number, enabled: boolean): void {
  const checksum = enabled ? pageChecksum(page, blockNumber) : 0;
  page[CHECKSUM_OFFSET] = checksum & 0xff;
  page[CHECKSUM_OFFSET + 1] = checksum >>> 8;
}

/** True when the stored checksum is the right one, or the page is new (pd_upper 0), which carries none. */
export function verifyPageChecksum(page: Uint8Array, blockNumber: number): boolean {
  if (page[14] === 0 && page[15] === 0) return true;
  return (page[CHECKSUM_OFFSET] | (page[CHECKSUM_OFFSET + 1] << 8)) === pageChecksum(page, blockNumber);
}

function step(sum: number, word: number): number {
  const mixed = sum ^ word;
  return Math.imul(mixed, FNV_PRIME) ^ (mixed >>> 17);
}
