import { describe, expect, test } from "bun:test";
import { type Key, KEY_MAX, KEY_MIN, type KeyRange } from "../../../src/keyspace/key.ts";
import { AUX_FILE_RANGE, relBlockKey, SPARSE_RANGE } from "../../../src/keyspace/mapping.ts";
import type { LayerName } from "../../../src/pageserver/layers/layer-name.ts";
import { LayerMap, type MappedLayer } from "../../../src/pageserver/layers/layer-map.ts";
import { needsImage, partitionKeySpace, planL0Compaction } from "../../../src/pageserver/maintenance/compaction-planner.ts";
import { type GcInput, planGc, planGcCutoff } from "../../../src/pageserver/maintenance/gc-planner.ts";

const block = (n: number, relNumber = 1): Key => relBlockKey({ spcOid: 1663, dbOid: 5, relNumber, fork: 0 }, n);
const range = (from: number, to: number, relNumber = 1): KeyRange => ({ start: block(from, relNumber), end: block(to, relNumber) });
const delta = (keyRange: KeyRange, start: number, end: number): LayerName => ({ kind: "delta", keyRange, lsnRange: { start, end } });
const image = (keyRange: KeyRange, lsn: number): LayerName => ({ kind: "image", keyRange, lsn });

function mapOf(...names: LayerName[]): LayerMap<MappedLayer> {
  const map = new LayerMap<MappedLayer>();
  for (const name of names) map.add({ name });
  return map;
}

/** All steps, one layer each. */
function collect(map: LayerMap<MappedLayer>, input: GcInput) {
  const removed: LayerName[] = [];
  const steps = planGc(map, input, 1);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return { removed, counts: step.value };
    for (const layer of step.value) map.remove(layer);
    removed.push(...step.value.map(({ name }) => name));
  }
}

describe("L0 compaction", () => {
  const layers = (...sizes: number[]) => sizes.map((sizeBytes, i) => ({ name: delta({ start: KEY_MIN, end: KEY_MAX }, i, i + 1), metadata: { sizeBytes } }));
  test("waits for the threshold, takes the oldest, bounded in bytes and number, but two at least", () => {
    expect(planL0Compaction(layers(1, 1), { threshold: 3, maxBytes: 100 })).toEqual([]);
    expect(planL0Compaction(layers(1), { threshold: 1, maxBytes: 100 })).toEqual([]);
    expect(planL0Compaction(layers(1, 1, 1), { threshold: 3, maxBytes: 100 }).length).toBe(3);
    expect(planL0Compaction(layers(40, 40, 40), { threshold: 3, maxBytes: 100 }).map(({ name }) => (name.kind === "delta" ? name.lsnRange.start : -1))).toEqual([0, 1]);
    expect(planL0Compaction(layers(400, 400, 400), { threshold: 3, maxBytes: 100 }).length).toBe(2);
    expect(planL0Compaction(layers(...new Array<number>(50).fill(0)), { threshold: 3, maxBytes: 100 }).length).toBe(20);
  });
});

describe("image partitions", () => {
  test("have about the target size, run over gaps, and keep sparse ranges whole", () => {
    const dense = { ranges: [range(0, 250), range(0, 10, 7)] };
    const partitions = [...partitionKeySpace({ dense, sparse: { ranges: [AUX_FILE_RANGE] } }, 100 * 8192)];
    expect(partitions.map(({ keyRange }) => keyRange)).toEqual([
      { start: KEY_MIN, end: block(100) },
      { start: block(100), end: block(200) },
      { start: block(200), end: SPARSE_RANGE.start },
      AUX_FILE_RANGE,
    ]);
    expect(partitions[2].ranges).toEqual([range(200, 250), range(0, 10, 7)]);
    expect(partitions.map(({ sparse }) => sparse)).toEqual([false, false, false, true]);
    expect([...partitionKeySpace({ dense: { ranges: [] }, sparse: { ranges: [] } }, 8192)]).toEqual([]);
  });

  test("need an image where enough deltas lie above the last one", () => {
    const [partition] = partitionKeySpace({ dense: { ranges: [range(0, 10)] }, sparse: { ranges: [] } }, 1e9);
    const names = [delta(range(0, 5), 1, 11), delta(range(0, 5), 11, 21), delta(range(3, 9), 21, 31)];
    expect(needsImage(mapOf(...names), partition, { lsn: 30, threshold: 3 })).toBe(true);
    expect(needsImage(mapOf(...names), partition, { lsn: 20, threshold: 3 })).toBe(false);
    expect(needsImage(mapOf(...names, image(range(0, 10), 10)), partition, { lsn: 30, threshold: 3 })).toBe(false);
    expect(needsImage(mapOf(...names, image(range(0, 10), 10)), partition, { lsn: 30, threshold: 2 })).toBe(true);
    expect(needsImage(mapOf(...names, image(range(0, 10), 30)), partition, { lsn: 30, threshold: 0 })).toBe(false);
    expect(needsImage(mapOf(image(range(0, 10), 10)), partition, { lsn: 30, threshold: 0 })).toBe(true);
  });
});

describe("garbage collection", () => {
  const base = { lastRecordLsn: 1000, gcHorizonBytes: 100, pitrIntervalMs: 60_000, pitrLsn: 500, current: 200, diskConsistentLsn: 990 };
  test("cutoff: the lower of horizon and interval, never back, never beyond what is durable", () => {
    expect(planGcCutoff(base)).toBe(500);
    expect(planGcCutoff({ ...base, pitrLsn: 950 })).toBe(900);
    expect(planGcCutoff({ ...base, pitrLsn: null })).toBe(200);
    expect(planGcCutoff({ ...base, pitrLsn: 100 })).toBe(200);
    expect(planGcCutoff({ ...base, pitrIntervalMs: 0, pitrLsn: null })).toBe(990);
    expect(planGcCutoff({ ...base, pitrIntervalMs: 0, pitrLsn: null, gcHorizonBytes: 1e9, diskConsistentLsn: 1000 })).toBe(1000);
  });

  test("a layer goes only below the cutoff, unretained and covered by images", () => {
    const old = delta(range(0, 10), 10, 21);
    const cover = image(range(0, 10), 20);
    const removedOf = (names: LayerName[], cutoff: number, retainLsns: number[] = []) => collect(mapOf(...names), { cutoff, branchPoints: () => retainLsns, leases: () => [] }).removed;
    expect(removedOf([old, cover], 21)).toEqual([old]);
    expect(removedOf([old, cover], 20)).toEqual([]);
    expect(removedOf([old], 50)).toEqual([]);
    expect(removedOf([old, image(range(0, 9), 30)], 50)).toEqual([]);
    expect(removedOf([old, image(range(0, 5), 30), image(range(5, 10), 40)], 50)).toEqual([old]);
    expect(removedOf([old, image(range(0, 10), 60)], 50)).toEqual([]);
    expect(removedOf([old, image(range(0, 10), 51)], 50)).toEqual([]);
    expect(removedOf([old, image(range(0, 10), 50)], 50)).toEqual([old]);
    expect(removedOf([old, cover], 50, [9])).toEqual([old]);
    expect(removedOf([old, cover], 50, [10])).toEqual([]);
    expect(removedOf([old, cover], 50, [45])).toEqual([]);
  });

  test("of images the newest below the cutoff stays", () => {
    const [first, second, third] = [image(range(0, 10), 10), image(range(0, 10), 20), image(range(0, 10), 30)];
    const { removed, counts } = collect(mapOf(first, second, third), { cutoff: 25, branchPoints: () => [], leases: () => [] });
    expect(removed).toEqual([first]);
    expect(counts).toEqual({ removed: 1, keptByHorizon: 1, keptByPitr: 0, keptUncovered: 1, keptByBranches: 0, keptByLeases: 0 });
  });
});
