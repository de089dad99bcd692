/**
 * Runs damaged records through decoding, interpretation (with it the effects) and redo and watches for anything but a typed
 * error:
 *
 * - an error of another class, or one that only the runtime's own bounds check stopped;
 * - a byte written outside the page;
 * - a page or an interpretation that depends on bytes outside record and page (each attempt runs twice, between different
 *   bytes);
 * - more than 10 ms for one attempt (ten times in a row, so that a busy machine is not blamed on the record);
 * - one allocation of more than 16 MiB.
 */
import { dataViewOf } from "../../../src/kit/bytes.ts";
import { StrataError } from "../../../src/kit/errors.ts";
import { interpretRecord } from "../../../src/interpret/interpret-record.ts";
import { UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import { PAGE_SIZE } from "../../../src/postgres/page/page-layout.ts";
import { redoRecord } from "../../../src/postgres/redo/redo.ts";
import { decodeInPlace } from "../../../src/postgres/wal/decode-record.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { watchAllocations } from "./allocations.ts";
import type { Material, WalWindow } from "./collect.ts";
import { type Attempt, Rng, applyTweaks, damage, emptyAttempt } from "./mutate.ts";

const GUARD_BYTES = 256;
const STEP_LIMIT_MS = 10;
const SLOW_TRIES = 10;
const ALLOCATION_LIMIT_BYTES = 16 * 1024 * 1024;
/** One attempt in this many is on the cutter of records, with a piece of log this long. */
const STREAM_EVERY = 256;
const STREAM_BYTES = 32 * 1024;
const SEGMENT_SIZE = 16 * 1024 * 1024;
const MAX_VIOLATIONS_KEPT = 20;

class Arena {
  readonly #record = new Uint8Array(128 * 1024 + 2 * GUARD_BYTES);
  readonly #recordView = dataViewOf(this.#record);
  readonly #page = new Uint8Array(PAGE_SIZE + 2 * GUARD_BYTES);
  readonly page = this.#page.subarray(GUARD_BYTES, GUARD_BYTES + PAGE_SIZE);
  readonly decoded = new WalRecord();
  #filler = 0;

  load(attempt: Attempt, filler: number): void {
    const { decoded } = this;
    const end = GUARD_BYTES + attempt.recordLength;
    this.#filler = filler;
    this.#record.fill(filler, 0, GUARD_BYTES);
    this.#record.set(attempt.record.subarray(0, attempt.recordLength), GUARD_BYTES);
    this.#record.fill(filler, end, end + GUARD_BYTES);
    this.#page.fill(filler, 0, GUARD_BYTES);
    this.#page.fill(filler, GUARD_BYTES + PAGE_SIZE);
    this.page.set(attempt.page);
    decoded.bytes = this.#record;
    decoded.view = this.#recordView;
    decoded.start = GUARD_BYTES;
    decoded.totalLength = attempt.recordLength;
    decoded.version = attempt.major;
    decoded.lsn = attempt.endLsn;
    decoded.endLsn = attempt.endLsn;
  }

  guardsWhole(): boolean {
    for (let i = 0; i < GUARD_BYTES; i++) {
      if (this.#page[i] !== this.#filler || this.#page[GUARD_BYTES + PAGE_SIZE + i] !== this.#filler) return false;
    }
    return true;
  }
}

/**
 * What is attacked: does to a page what one block of a decoded record says (-1: a record without blocks), or learns from the
 * record; what it returns must not depend on anything outside.
 */
export type AttackTarget = (page: Uint8Array, record: WalRecord, blockId: number) => unknown;

const SHARDS = [UNSHARDED_IDENTITY, { number: 0, count: 4, stripeBlocks: 1 }, { number: 3, count: 4, stripeBlocks: 2048 }] as const;

const interpretation: AttackTarget = (_, record) => interpretRecord(record, SHARDS[record.totalLength % SHARDS.length]);
const redo: AttackTarget = (page, record, blockId) => {
  if (blockId >= 0) redoRecord(page, record, blockId, record.endLsn);
};

export interface AttackOptions {
  readonly seed: number;
  /** One after the other, whatever becomes of the one before; default: interpretation, redo. */
  readonly targets?: readonly AttackTarget[];
}

/** The same attempts in the same order for the same material and seed, as many at a time as one likes. */
export class Attack {
  /** How many have been made. */
  attempts = 0;
  violationCount = 0;
  /** The first of them. */
  readonly violations: string[] = [];
  /** How often each error code came; "" for success. */
  readonly outcomes = new Map<string, number>();
  readonly #material: Material;
  readonly #rng: Rng;
  readonly #attempt = emptyAttempt();
  readonly #arena = new Arena();
  readonly #firstPage = new Uint8Array(PAGE_SIZE);
  readonly #piece = new Uint8Array(STREAM_BYTES);
  readonly #seed: number;
  readonly #targets: readonly AttackTarget[];
  #results: unknown[] = [];

  constructor(material: Material, options: AttackOptions) {
    this.#material = material;
    this.#seed = options.seed;
    this.#targets = options.targets ?? [interpretation, redo];
    this.#rng = new Rng(options.seed);
  }

  run(attempts: number): void {
    const { stackTraceLimit } = Error;
    // Every other attempt makes an error; a violation needs only the place.
    Error.stackTraceLimit = 3;
    const stopWatching = watchAllocations(ALLOCATION_LIMIT_BYTES, (size) => this.#violation(this.attempts, `an allocation of ${size} bytes`));
    try {
      for (const end = this.attempts + attempts; this.attempts < end; this.attempts++) this.#step(this.attempts);
    } finally {
      stopWatching();
      Error.stackTraceLimit = stackTraceLimit;
    }
  }

  #step(number: number): void {
    if (number % STREAM_EVERY === 0 && this.#material.windows.length > 0) this.#attackStream(number);
    else this.#attackRecord(number);
  }

  #violation(number: number, what: string): void {
    this.violationCount++;
    if (this.violations.length < MAX_VIOLATIONS_KEPT) this.violations.push(`seed ${this.#seed} attempt ${number}: ${what}`);
  }

  #attackRecord(number: number): void {
    const sample = damage(this.#attempt, this.#rng, this.#material.samples);
    const first = this.#timed(number, sample.kind, 0x00);
    const firstResults = this.#results;
    this.#firstPage.set(this.#arena.page);
    const second = this.#timed(number, sample.kind, 0xff);
    if (first !== second) this.#violation(number, `${sample.kind}: bytes outside decide between ${JSON.stringify(first)} and ${JSON.stringify(second)}`);
    else if (Buffer.compare(this.#firstPage, this.#arena.page) !== 0) this.#violation(number, `${sample.kind}: bytes outside get into the page`);
    if (!Bun.deepEquals(firstResults, this.#results)) this.#violation(number, `${sample.kind}: bytes outside get into what is learned`);
    this.outcomes.set(first, (this.outcomes.get(first) ?? 0) + 1);
  }

  #timed(number: number, kind: string, filler: number): string {
    let outcome = "";
    for (let tries = 0; tries < SLOW_TRIES; tries++) {
      this.#arena.load(this.#attempt, filler);
      const startMs = performance.now();
      outcome = this.#guarded(number, kind);
      const tookMs = performance.now() - startMs;
      if (tookMs <= STEP_LIMIT_MS) return outcome;
      if (tries === SLOW_TRIES - 1) this.#violation(number, `${kind}: ${tookMs.toFixed(1)} ms`);
    }
    return outcome;
  }

  /** The codes of the errors that came; a record that cannot be decoded has the one. */
  #guarded(number: number, kind: string): string {
    const { decoded, page } = this.#arena;
    this.#results = [];
    try {
      decodeInPlace(decoded, false);
    } catch (error) {
      return this.#judge(error, number, kind);
    }
    applyTweaks(this.#attempt, decoded);
    let outcome = "";
    for (const target of this.#targets) {
      try {
        this.#results.push(target(page, decoded, this.#attempt.blockId));
      } catch (error) {
        const code = this.#judge(error, number, kind);
        if (code !== outcome) outcome = outcome === "" ? code : `${outcome} ${code}`;
      }
    }
    if (!this.#arena.guardsWhole()) this.#violation(number, `${kind}: bytes outside the page were written`);
    return outcome;
  }

  #judge(error: unknown, number: number, kind: string): string {
    if (!(error instanceof StrataError)) {
      this.#violation(number, `${kind}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
      return "untyped";
    }
    // The dispatcher gives these a type, but only because the runtime refused an access nobody had checked.
    if (error.cause instanceof RangeError || error.cause instanceof TypeError) this.#violation(number, `${kind}: unchecked, ${error.cause.stack ?? ""}`);
    return error.code;
  }

  #attackStream(number: number): void {
    const rng = this.#rng;
    const window = rng.pick(this.#material.windows);
    const length = Math.min(STREAM_BYTES, window.bytes.length);
    this.#piece.set(window.bytes.subarray(0, length));
    for (let n = rng.below(3); n >= 0; n--) this.#piece[rng.below(length)] ^= 1 << rng.below(8);
    try {
      this.#feed(window, length, number);
    } catch (error) {
      this.#judge(error, number, `log of pg${window.major}`);
    }
  }

  /** In pieces of any size; a record is never returned twice, so there can be only so many. */
  #feed(window: WalWindow, length: number, number: number): void {
    const decoder = new WalStreamDecoder(window.start, window.major, SEGMENT_SIZE);
    const { decoded } = this.#arena;
    let left = length / 24;
    for (let at = 0; at < length; ) {
      const end = Math.min(length, at + 1 + this.#rng.below(this.#rng.pick([16, 512, 9000, 2 * STREAM_BYTES])));
      decoder.feed(this.#piece.subarray(at, end));
      while (decoder.next(decoded)) if (left-- < 0) return this.#violation(number, `log of pg${window.major}: more records than it has room for`);
      at = end;
    }
  }
}
