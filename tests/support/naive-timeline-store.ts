/**
 * A timeline's storage as plainly as can be: every value ever put, in memory, replayed on each read. The yardstick
 * for the real one, and what tests of the parts above storage run on.
 */
import { applyNeonRecord } from "../../src/interpret/apply-neon-record.ts";
import type { KeyValue, Value } from "../../src/interpret/value.ts";
import { valueWillInit } from "../../src/interpret/value.ts";
import type { ValueBatch } from "../../src/interpret/value-batch.ts";
import { compareKeys, type Key, keyToHex, type KeyRange, rangeContains } from "../../src/keyspace/key.ts";
import { isInheritedKey } from "../../src/keyspace/mapping.ts";
import { invariant, StrataError } from "../../src/kit/errors.ts";
import type { TenantShardId } from "../../src/kit/ids.ts";
import { type Lsn, lsnToString } from "../../src/kit/lsn.ts";
import type { ReadContext, TimelineStore } from "../../src/pageserver/timeline/timeline-store.ts";

export type ApplyRecord = (key: Key, value: Extract<Value, { kind: "postgres" }>, page: Uint8Array, lsn: Lsn) => Uint8Array;

interface Version {
  readonly lsn: Lsn;
  readonly value: Value;
}

export class NaiveTimelineStore implements TimelineStore {
  readonly tenantShardId: TenantShardId = { tenantId: "0".repeat(32), number: 0, count: 0 };
  readonly timelineId = "1".repeat(32);
  readonly ancestor: { timelineId: string; lsn: Lsn } | null;
  readonly #parent: NaiveTimelineStore | null;
  readonly #applyRecord: ApplyRecord;
  readonly #values = new Map<string, { key: Key; versions: Version[] }>();
  #highestPut: Lsn = 0;
  readonly #waiters = new Set<() => void>();
  lastRecordLsn: Lsn;
  prevRecordLsn: Lsn = 0;
  gcCutoffLsn: Lsn = 0;

  constructor(options: { lastRecordLsn?: Lsn; applyRecord?: ApplyRecord; branchOf?: NaiveTimelineStore; branchLsn?: Lsn } = {}) {
    this.#parent = options.branchOf ?? null;
    this.lastRecordLsn = options.branchLsn ?? options.lastRecordLsn ?? 0;
    this.ancestor = this.#parent === null ? null : { timelineId: this.#parent.timelineId, lsn: this.lastRecordLsn };
    this.#applyRecord = options.applyRecord ?? (() => {
      throw new Error("this test has no redo");
    });
  }

  get diskConsistentLsn(): Lsn {
    return this.lastRecordLsn;
  }
  get remoteConsistentLsn(): Lsn {
    return this.lastRecordLsn;
  }

  async put(values: readonly KeyValue[]): Promise<void> {
    for (const { key, lsn, value } of values) {
      invariant(lsn > this.lastRecordLsn, `put at ${lsnToString(lsn)}, not above ${lsnToString(this.lastRecordLsn)}`);
      invariant(lsn >= this.#highestPut, `put at ${lsnToString(lsn)} after ${lsnToString(this.#highestPut)}`);
      this.#highestPut = lsn;
      const id = keyToHex(key);
      const entry = this.#values.get(id) ?? { key, versions: [] };
      invariant(entry.versions.at(-1)?.lsn !== lsn, `two values for ${id} at ${lsnToString(lsn)}`);
      entry.versions.push({ lsn, value });
      this.#values.set(id, entry);
    }
  }

  putBatch(batch: ValueBatch): Promise<void> {
    return this.put(batch.toValues());
  }

  readPageNow(): boolean {
    return false;
  }

  advance(lastRecordLsn: Lsn, prevRecordLsn: Lsn): void {
    invariant(lastRecordLsn >= this.lastRecordLsn && lastRecordLsn >= this.#highestPut, "advance must cover what was put");
    this.lastRecordLsn = lastRecordLsn;
    this.prevRecordLsn = prevRecordLsn;
    for (const wake of this.#waiters) wake();
  }

  async waitLsn(lsn: Lsn, options: { timeoutMs?: number; signal?: AbortSignal; who: string }): Promise<void> {
    const deadline = Date.now() + (options.timeoutMs ?? 5000);
    while (this.lastRecordLsn < lsn) {
      const left = deadline - Date.now();
      if (left <= 0) throw new StrataError("retry", "wait-lsn-timeout", `${options.who}: ${lsnToString(lsn)} not reached, at ${lsnToString(this.lastRecordLsn)}`);
      let wake: () => void = () => {};
      await new Promise<void>((resolve) => {
        wake = resolve;
        this.#waiters.add(resolve);
        setTimeout(resolve, left);
      });
      this.#waiters.delete(wake);
    }
  }

  /** Versions up to `lsn`, oldest first, from the newest that needs nothing below it. */
  #chain(key: Key, lsn: Lsn): Version[] {
    const own = (this.#values.get(keyToHex(key))?.versions ?? []).filter((version) => version.lsn <= lsn);
    const start = own.findLastIndex((version) => valueWillInit(version.value));
    if (start >= 0) return own.slice(start);
    const inherited = this.#parent !== null && this.ancestor !== null && isInheritedKey(key) ? this.#parent.#chain(key, Math.min(lsn, this.ancestor.lsn)) : [];
    return [...inherited, ...own];
  }

  #reconstruct(key: Key, lsn: Lsn): Uint8Array {
    const chain = this.#chain(key, lsn);
    if (chain.length === 0 || !valueWillInit(chain[0].value)) {
      throw new StrataError("not-found", "missing-key", `key ${keyToHex(key)} at ${lsnToString(lsn)}: ${chain.length} records without a base`);
    }
    let page: Uint8Array = new Uint8Array(8192);
    for (const { lsn: at, value } of chain) {
      if (value.kind === "image") page = value.bytes.slice();
      else if (value.kind === "neon") page = applyNeonRecord(key, value.record, page, at);
      else page = this.#applyRecord(key, value, value.willInit ? new Uint8Array(8192) : page, at);
    }
    return page;
  }

  async get(key: Key, lsn: Lsn, _context: ReadContext): Promise<Uint8Array> {
    return this.#reconstruct(key, lsn);
  }

  async getVectored(keys: readonly Key[], lsn: Lsn, _context: ReadContext): Promise<(Uint8Array | Error)[]> {
    return keys.map((key) => {
      try {
        return this.#reconstruct(key, lsn);
      } catch (error) {
        return error as Error;
      }
    });
  }

  async scan(range: KeyRange, lsn: Lsn, _context: ReadContext): Promise<{ key: Key; bytes: Uint8Array }[]> {
    const found: { key: Key; bytes: Uint8Array }[] = [];
    for (const { key, versions } of this.#values.values()) {
      if (!rangeContains(range, key) || !versions.some((version) => version.lsn <= lsn)) continue;
      const bytes = this.#reconstruct(key, lsn);
      if (bytes.length > 0) found.push({ key, bytes });
    }
    return found.sort((a, b) => compareKeys(a.key, b.key));
  }

  async freezeAndFlush(): Promise<void> {}
  async waitUploaded(): Promise<void> {}

  /** All versions stored, for tests that look at what was written. */
  versionsOf(key: Key): readonly Version[] {
    return this.#values.get(keyToHex(key))?.versions ?? [];
  }
}
