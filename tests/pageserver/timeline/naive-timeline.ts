/** The simplest thing that a timeline must agree with: every value ever put, in a map. */
import { applyNeonRecord } from "../../../src/interpret/apply-neon-record.ts";
import type { KeyValue, Value } from "../../../src/interpret/value.ts";
import { type Key, keyToHex } from "../../../src/keyspace/key.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";

interface Version {
  readonly lsn: Lsn;
  readonly key: Key;
  readonly value: Value;
}

export class NaiveTimeline {
  readonly #versions = new Map<string, Version[]>();
  readonly #ancestor: { readonly timeline: NaiveTimeline; readonly lsn: Lsn } | null;
  lastRecordLsn: Lsn;

  constructor(start: Lsn, ancestor: { readonly timeline: NaiveTimeline; readonly lsn: Lsn } | null = null) {
    this.lastRecordLsn = start;
    this.#ancestor = ancestor;
  }

  put({ key, lsn, value }: KeyValue): void {
    const list = this.#versions.get(keyToHex(key)) ?? [];
    if (list.at(-1)?.lsn === lsn) list.pop();
    list.push({ key, lsn, value });
    this.#versions.set(keyToHex(key), list);
    this.lastRecordLsn = Math.max(this.lastRecordLsn, lsn);
  }

  /** What was put above `lsn`, in LSN order: to be put again after a crash. */
  after(lsn: Lsn): KeyValue[] {
    return [...this.#versions.values()].flat().filter((version) => version.lsn > lsn).sort((a, b) => a.lsn - b.lsn);
  }

  #history(key: string, lsn: Lsn): Version[] {
    const below = this.#ancestor === null ? [] : this.#ancestor.timeline.#history(key, Math.min(lsn, this.#ancestor.lsn));
    return [...below, ...(this.#versions.get(key) ?? []).filter((version) => version.lsn <= lsn)];
  }

  /** Null where the key has no image yet. */
  get(key: Key, lsn: Lsn): Uint8Array | null {
    let page: Uint8Array | null = null;
    for (const version of this.#history(keyToHex(key), lsn)) {
      if (version.value.kind === "image") page = version.value.bytes.slice();
      else if (version.value.kind === "neon" && page !== null) page = applyNeonRecord(key, version.value.record, page, version.lsn);
    }
    return page;
  }
}
