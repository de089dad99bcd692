/**
 * Damage done to a record and its page, all of it from a seed.
 */
import { PAGE_SIZE } from "../../../src/postgres/page/page-layout.ts";
import type { WalRecord } from "../../../src/postgres/wal/record.ts";
import type { Sample } from "./collect.ts";

/** xorshift32: quick, and the same everywhere. */
export class Rng {
  #state: number;

  constructor(seed: number) {
    this.#state = (Math.imul(seed + 1, 0x9e37_79b1) ^ 0x5bd1_e995) | 1;
  }

  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  below(limit: number): number {
    return this.next() % limit;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)];
  }
}

const MAX_RECORD = 128 * 1024;
const INTERESTING_16 = [0, 1, 2, 3, 7, 8, 23, 24, 25, 127, 128, 255, 256, 2047, 2048, 4095, 8160, 8176, 8184, 8191, 8192, 8193, 0x7fff, 0x8000, 0xfff8, 0xffff];
const INTERESTING_32 = [0, 1, 0x7f, 0xff, 0x1fff, 0x2000, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];

/** What is tried next: refilled by `damage`, read by the attack. */
export interface Attempt {
  major: Sample["major"];
  readonly record: Uint8Array;
  recordLength: number;
  readonly page: Uint8Array;
  blockId: number;
  endLsn: number;
  /** Changes to the decoded record, as a shorter or different one would have decoded. */
  mainDataLength: number;
  blockDataLength: number;
  blockNumber: number;
}

const UNCHANGED = -1;

export function emptyAttempt(): Attempt {
  return {
    major: 17, record: new Uint8Array(MAX_RECORD), recordLength: 0, page: new Uint8Array(PAGE_SIZE), blockId: 0, endLsn: 0,
    mainDataLength: UNCHANGED, blockDataLength: UNCHANGED, blockNumber: UNCHANGED,
  };
}

type Damage = (attempt: Attempt, rng: Rng, samples: readonly Sample[]) => void;

function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
}

/** Any of the record's bytes behind its length field. */
function recordAt(attempt: Attempt, rng: Rng): number {
  return 4 + rng.below(Math.max(1, attempt.recordLength - 8));
}

const DAMAGES: readonly Damage[] = [
  // the record: bits, whole bytes, numbers of 16 and 32 bits
  (attempt, rng) => {
    for (let n = rng.below(4); n >= 0; n--) attempt.record[recordAt(attempt, rng)] ^= 1 << rng.below(8);
  },
  (attempt, rng) => {
    for (let n = rng.below(3); n >= 0; n--) attempt.record[recordAt(attempt, rng)] = rng.next();
  },
  (attempt, rng) => put16(attempt.record, recordAt(attempt, rng), rng.pick(INTERESTING_16)),
  (attempt, rng) => {
    const at = recordAt(attempt, rng);
    const value = rng.pick(INTERESTING_32);
    put16(attempt.record, at, value & 0xffff);
    put16(attempt.record, at + 2, value >>> 16);
  },
  // near its end lie main data and tuples, near its beginning the block references
  (attempt, rng) => put16(attempt.record, Math.max(4, attempt.recordLength - 2 - rng.below(32)), rng.pick(INTERESTING_16)),
  (attempt, rng) => put16(attempt.record, 24 + rng.below(Math.max(1, Math.min(40, attempt.recordLength - 26))), rng.pick(INTERESTING_16)),
  // another kind, another manager, another version
  (attempt, rng) => {
    attempt.record[16] = rng.next();
  },
  (attempt, rng) => {
    attempt.record[17] = rng.pick([9, 10, 11, 12, 13, 14, 15, 16, 17, 20, 0, 134]);
  },
  (attempt, rng) => {
    attempt.major = rng.pick([14, 15, 16, 17] as const);
  },
  // lengths and numbers a differently cut record would have
  (attempt, rng) => {
    attempt.mainDataLength = rng.below(40);
  },
  (attempt, rng) => {
    attempt.blockDataLength = rng.below(rng.pick([4, 16, 64, 512]));
  },
  (attempt, rng) => {
    attempt.blockNumber = rng.pick(INTERESTING_32);
  },
  (attempt, rng) => {
    attempt.blockId = rng.below(rng.pick([3, 8, 34]));
  },
  // the page: header, line pointers, bits, another kind, noise, nothing
  (attempt, rng) => put16(attempt.page, rng.pick([10, 12, 14, 16, 18]), rng.pick(INTERESTING_16)),
  (attempt, rng) => put16(attempt.page, 24 + 4 * rng.below(rng.pick([2, 16, 200])) + 2 * rng.below(2), rng.next()),
  (attempt, rng) => put16(attempt.page, PAGE_SIZE - 2 - 2 * rng.below(8), rng.pick(INTERESTING_16)),
  (attempt, rng) => {
    for (let n = rng.below(16); n >= 0; n--) attempt.page[rng.below(PAGE_SIZE)] ^= 1 << rng.below(8);
  },
  (attempt, rng, samples) => attempt.page.set(rng.pick(samples).page),
  (attempt, rng) => {
    const from = rng.below(PAGE_SIZE);
    for (let at = from; at < Math.min(PAGE_SIZE, from + 64); at++) attempt.page[at] = rng.next();
  },
  (attempt) => {
    attempt.page.fill(0);
  },
];

/** Records whose image is all that matters are many, take the longest and have the least to go wrong: three of four are passed over. */
function pickSample(rng: Rng, samples: readonly Sample[]): Sample {
  const sample = rng.pick(samples);
  return sample.kind.endsWith("no image") || rng.below(4) === 0 ? sample : rng.pick(samples);
}

/** Loads a sample into `attempt` and damages it in one to three ways; one in fifty stays whole. */
export function damage(attempt: Attempt, rng: Rng, samples: readonly Sample[]): Sample {
  const sample = pickSample(rng, samples);
  attempt.major = sample.major;
  attempt.record.set(sample.record);
  attempt.recordLength = sample.record.length;
  attempt.page.set(sample.page);
  attempt.blockId = sample.blockId;
  attempt.endLsn = sample.endLsn;
  attempt.mainDataLength = UNCHANGED;
  attempt.blockDataLength = UNCHANGED;
  attempt.blockNumber = UNCHANGED;
  if (rng.below(50) === 0) return sample;
  for (let n = rng.below(3); n >= 0; n--) rng.pick(DAMAGES)(attempt, rng, samples);
  return sample;
}

/** Carries the attempt's changes over to the decoded record; lengths only ever shrink, as everything else would leave the record. */
export function applyTweaks(attempt: Attempt, record: WalRecord): void {
  if (attempt.mainDataLength >= 0) record.mainDataLength = Math.min(record.mainDataLength, attempt.mainDataLength);
  const ref = attempt.blockId >= 0 ? record.blocks[attempt.blockId] : undefined;
  if (ref === undefined || !ref.inUse) return;
  if (attempt.blockDataLength >= 0) ref.dataLength = Math.min(ref.dataLength, attempt.blockDataLength);
  if (ref.dataLength === 0) ref.hasData = false;
  if (attempt.blockNumber >= 0) ref.blockNumber = attempt.blockNumber;
}
