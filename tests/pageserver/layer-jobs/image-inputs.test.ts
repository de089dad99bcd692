/** The layers chosen for an image lead a read the same way as all of them do, down to the image it stops at. */
import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { compareKeys, type Key, KEY_MAX, KEY_MIN } from "../../../src/keyspace/key.ts";
import { imageInputs } from "../../../src/pageserver/layer-jobs/image-inputs.ts";
import { LayerMap, type MappedLayer } from "../../../src/pageserver/layers/layer-map.ts";
import { type LayerName, layerNameToString } from "../../../src/pageserver/layers/layer-name.ts";

setDefaultTimeout(60_000);

const LSN = 25;

function key(n: number): Key {
  return { ...KEY_MIN, field6: n };
}

const layerArbitrary: fc.Arbitrary<LayerName> = fc
  .record({ kind: fc.integer({ min: 0, max: 3 }), key: fc.integer({ min: 0, max: 12 }), width: fc.integer({ min: 1, max: 8 }), lsn: fc.integer({ min: 1, max: 30 }), depth: fc.integer({ min: 1, max: 10 }) })
  .map(({ kind, key: start, width, lsn, depth }): LayerName => {
    const keyRange = { start: key(start), end: key(start + width) };
    if (kind === 0) return { kind: "delta", keyRange: { start: KEY_MIN, end: KEY_MAX }, lsnRange: { start: lsn, end: lsn + depth } };
    return kind <= 2 ? { kind: "image", keyRange, lsn } : { kind: "delta", keyRange, lsnRange: { start: lsn, end: lsn + depth } };
  });

/** Of deltas over one key that end together, which no timeline has, a map takes whichever came first. */
function withoutTies(names: readonly LayerName[]): LayerName[] {
  const meet = (a: LayerName, b: LayerName): boolean => compareKeys(a.keyRange.start, b.keyRange.end) < 0 && compareKeys(b.keyRange.start, a.keyRange.end) < 0;
  const tie = (a: LayerName, b: LayerName): boolean => a.kind === "delta" && b.kind === "delta" && a.lsnRange.end === b.lsnRange.end && meet(a, b);
  return names.filter((name, at) => !names.slice(0, at).some((before) => tie(before, name)));
}

function mapOf(layers: readonly MappedLayer[]): LayerMap<MappedLayer> {
  const map = new LayerMap<MappedLayer>();
  for (const layer of layers) map.add(layer);
  return map;
}

/** The steps of a read that finds no image in the layers: each layer and down to where it is read. */
function steps(map: LayerMap<MappedLayer>, n: number, stopAtImage: boolean): string[] {
  const found: string[] = [];
  for (let end = LSN + 1; ; ) {
    const next = map.search(key(n), end);
    if (next === null) return found;
    found.push(`${layerNameToString(next.layer.name)} from ${next.lsnFloor}`);
    if (stopAtImage && next.layer.name.kind === "image") return found;
    end = next.lsnFloor;
  }
}

test("each key is read as from all layers; one that its image lacks is either found as there, or not at all", () => {
  let partial = 0;
  fc.assert(
    fc.property(fc.uniqueArray(layerArbitrary, { maxLength: 25, selector: layerNameToString }), fc.integer({ min: 0, max: 10 }), fc.integer({ min: 1, max: 6 }), (names, from, width) => {
      const all = mapOf(withoutTies(names).map((name) => ({ name })));
      const ranges = [{ start: key(from), end: key(from + width) }, { start: key(from + width + 1), end: key(from + width + 2) }];
      const { layers, complete } = imageInputs(all, ranges, { lsn: LSN, everything: false });
      const some = mapOf(layers);
      if (!complete) partial++;
      for (const n of [...Array.from({ length: width }, (_, i) => from + i), from + width + 1]) {
        expect(steps(some, n, true)).toEqual(steps(all, n, true));
        const below = steps(some, n, false);
        const truth = steps(all, n, false);
        expect(below).toEqual(complete ? truth : truth.slice(0, below.length));
      }
      expect(imageInputs(all, ranges, { lsn: LSN, everything: true }).complete).toBe(true);
    }),
    { numRuns: 3000 },
  );
  expect(partial).toBeGreaterThan(100);
});
