/**
 * Garbage collection while the timeline lives: between its steps layers are flushed and images made, branches and leases come and leases end.
 * Whatever the order, all that may be asked for afterwards is still there: every LSN from the cutoff on, and every one that is retained.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { type Key, KEY_MAX, KEY_MIN, keyEquals } from "../../../src/keyspace/key.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import { LayerMap, type MappedLayer } from "../../../src/pageserver/layers/layer-map.ts";
import { layerLsnRange, type LayerName } from "../../../src/pageserver/layers/layer-name.ts";
import { planGc } from "../../../src/pageserver/maintenance/gc-planner.ts";

const KEYS = 8;
const key = (n: number): Key => relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 1, fork: 0 }, n);

/** What was written, and the layers it is in. */
class Store {
  readonly map = new LayerMap<MappedLayer>();
  /** LSNs at which each key changed, rising. */
  readonly history: number[][] = Array.from({ length: KEYS }, () => []);
  /** The first LSN that is in no layer yet. */
  end = 1;

  /** An L0 layer of `length` LSNs; each key of `changed` changes somewhere in it. */
  flush(length: number, changed: readonly number[]): void {
    const start = this.end;
    this.end += length;
    changed.forEach((n, at) => this.history[n % KEYS].push(start + (at % length)));
    for (const lsns of this.history) lsns.sort((a, b) => a - b);
    this.#add({ kind: "delta", keyRange: { start: KEY_MIN, end: KEY_MAX }, lsnRange: { start, end: this.end } });
  }

  /** All L0 layers become deltas cut at `cut`. */
  compact(cut: number): void {
    const l0 = [...this.map.l0];
    if (l0.length < 2) return;
    const lsnRange = { start: Math.min(...l0.map(({ name }) => layerLsnRange(name).start)), end: Math.max(...l0.map(({ name }) => layerLsnRange(name).end)) };
    for (const layer of l0) this.map.remove(layer);
    for (const keyRange of [{ start: key(0), end: key(cut) }, { start: key(cut), end: key(KEYS) }]) this.#add({ kind: "delta", keyRange, lsnRange });
  }

  image(from: number, to: number, lsn: number): void {
    if (lsn < this.end) this.#add({ kind: "image", keyRange: { start: key(from), end: key(to) }, lsn });
  }

  #add(name: LayerName): void {
    if (!this.map.has(name)) this.map.add({ name });
  }

  /** The changes of a key that its layers show at an LSN. */
  read(n: number, lsn: number): number[] {
    const seen: number[] = [];
    for (let end = lsn + 1; ; ) {
      const found = this.map.search(key(n), end);
      if (found === null) break;
      const { layer: { name }, lsnFloor } = found;
      if (name.kind === "image") return [...this.history[n].filter((at) => at <= name.lsn), ...seen];
      seen.unshift(...this.history[n].filter((at) => at >= Math.max(lsnFloor, name.lsnRange.start) && at < Math.min(end, name.lsnRange.end)));
      end = lsnFloor;
    }
    return seen;
  }
}

const change = fc.nat(KEYS - 1);
/** Half of them over all keys: others seldom make anything garbage. */
const place = fc.oneof(fc.constant({ from: 0, length: KEYS }), fc.record({ from: fc.nat(KEYS - 2), length: fc.integer({ min: 1, max: KEYS }) }));
const image = fc.tuple(place, fc.integer({ min: 1, max: 60 })).map(([where, lsn]) => ({ what: "image" as const, ...where, lsn }));
const flush = fc.record({ what: fc.constant("flush" as const), length: fc.integer({ min: 1, max: 6 }), changed: fc.array(change, { maxLength: 6 }) });
const before = fc.oneof({ arbitrary: flush, weight: 2 }, { arbitrary: image, weight: 3 }, fc.record({ what: fc.constant("compact" as const), cut: fc.integer({ min: 1, max: KEYS - 1 }) }));
const between = fc.oneof(flush, image, fc.record({ what: fc.constantFrom("branch" as const, "lease" as const), lsn: fc.nat(60) }), fc.record({ what: fc.constant("lease ends" as const), which: fc.nat(3) }));

function make(store: Store, event: { readonly what: "flush"; readonly length: number; readonly changed: readonly number[] } | { readonly what: "image"; readonly from: number; readonly length: number; readonly lsn: number }): void {
  if (event.what === "flush") store.flush(event.length, event.changed);
  else store.image(event.from, Math.min(KEYS, event.from + event.length), event.lsn);
}

const life = fc.record({
  past: fc.array(before, { minLength: 20, maxLength: 40 }),
  events: fc.array(between, { maxLength: 40 }),
  leased: fc.oneof(fc.constant<number[]>([]), fc.array(fc.nat(12), { maxLength: 2 })),
  wantedCutoff: fc.integer({ min: 10, max: 60 }),
  layersPerStep: fc.integer({ min: 1, max: 4 }),
});

test("whatever happens between its steps, nothing that may be asked for goes", () => {
  let removed = 0;
  fc.assert(
    fc.property(life, ({ past, events, leased, wantedCutoff, layersPerStep }) => {
      const store = new Store();
      for (const event of past) {
        if (event.what === "compact") store.compact(event.cut);
        else make(store, event);
      }
      const cutoff = Math.min(wantedCutoff, store.end - 1);
      const branches: number[] = [];
      const leases = leased.filter((lsn) => lsn > 0 && lsn < store.end);
      const steps = planGc(store.map, { cutoff, branchPoints: () => branches, leases: () => leases }, layersPerStep);
      const queue = [...events];
      for (let step = steps.next(); step.done !== true; step = steps.next()) {
        for (const layer of step.value) store.map.remove(layer);
        removed += step.value.length;
        const event = queue.shift();
        if (event === undefined) continue;
        if (event.what === "flush" || event.what === "image") make(store, event);
        else if (event.what === "lease ends") leases.splice(event.which, 1);
        // As creations check it: from the cutoff on, or where a lease is held.
        else if (event.lsn < store.end && (event.lsn >= cutoff || leases.includes(event.lsn))) (event.what === "branch" ? branches : leases).push(event.lsn);
      }
      const asked = new Set([...branches, ...leases]);
      for (let lsn = Math.max(1, cutoff); lsn < store.end; lsn++) asked.add(lsn);
      const reads = [...asked].flatMap((lsn) => store.history.map((changes, n) => ({ lsn, n, there: store.read(n, lsn).join(), wanted: changes.filter((at) => at <= lsn).join() })));
      expect(reads.filter(({ there, wanted }) => there !== wanted)).toEqual([]);
    }),
    { numRuns: 500 },
  );
  expect(removed).toBeGreaterThan(500);
});

test("a layer that covers all keys is judged without a list of them all", () => {
  const map = new LayerMap<MappedLayer>();
  const l0: LayerName = { kind: "delta", keyRange: { start: KEY_MIN, end: KEY_MAX }, lsnRange: { start: 1, end: 5 } };
  map.add({ name: l0 });
  for (let n = 0; n < 50; n++) map.add({ name: { kind: "image", keyRange: { start: n === 0 ? KEY_MIN : key(n), end: n === 49 ? KEY_MAX : key(n + 1) }, lsn: 10 } });
  expect(map.coveredByImages(l0.keyRange, { from: 4, to: 11 })).toBe(true);
  expect(map.coveredByImages(l0.keyRange, { from: 4, to: 10 })).toBe(false);
  map.remove([...map.layers()].find(({ name }) => name.kind === "image" && keyEquals(name.keyRange.start, key(30))) as MappedLayer);
  expect(map.coveredByImages(l0.keyRange, { from: 4, to: 11 })).toBe(false);
  expect(map.coveredByImages({ start: key(3), end: key(30) }, { from: 4, to: 11 })).toBe(true);
});
