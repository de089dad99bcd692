import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { type Key, KEY_MAX, KEY_MIN } from "../../../src/keyspace/key.ts";
import { type LayerName, layerLsnRange } from "../../../src/pageserver/layers/layer-name.ts";
import { LayerMap, type MappedLayer } from "../../../src/pageserver/layers/layer-map.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

function key(n: number): Key {
  return { ...KEY_MIN, field6: n };
}

const layerArbitrary: fc.Arbitrary<LayerName> = fc
  .record({ kind: fc.integer({ min: 0, max: 3 }), key: fc.integer({ min: 0, max: 12 }), width: fc.integer({ min: 1, max: 5 }), lsn: fc.integer({ min: 1, max: 30 }), depth: fc.integer({ min: 1, max: 10 }) })
  .map(({ kind, key: start, width, lsn, depth }): LayerName => {
    const keyRange = { start: key(start), end: key(start + width) };
    if (kind === 0) return { kind: "delta", keyRange: { start: KEY_MIN, end: KEY_MAX }, lsnRange: { start: lsn, end: lsn + depth } };
    return kind === 1 ? { kind: "image", keyRange, lsn } : { kind: "delta", keyRange, lsnRange: { start: lsn, end: lsn + depth } };
  });

function covers(name: LayerName, n: number): boolean {
  return name.keyRange.start.field6 <= n && (name.keyRange.end.field1 > 0 || n < name.keyRange.end.field6);
}

/** What one search tells: which kind, down to where, so that following it visits all there is. */
function naive(layers: readonly MappedLayer[], n: number, end: number): { kind: LayerName["kind"]; floor: number } | null {
  const over = layers.filter(({ name }) => covers(name, n) && layerLsnRange(name).start < end);
  const image = Math.max(0, ...over.filter(({ name }) => name.kind === "image").map(({ name }) => layerLsnRange(name).start));
  const deltas = over.filter(({ name }) => name.kind === "delta").map(({ name }) => layerLsnRange(name));
  const newest = Math.max(0, ...deltas.map((range) => Math.min(range.end, end)));
  if (newest === 0) return image === 0 ? null : { kind: "image", floor: image };
  if (image > 0 && image + 1 >= newest) return { kind: "image", floor: image };
  const deepest = Math.min(...deltas.filter((range) => Math.min(range.end, end) === newest).map((range) => range.start));
  return { kind: "delta", floor: Math.max(deepest, image + 1) };
}

test("search, coverage and counts agree with a look at all layers", () => {
  fc.assert(
    fc.property(fc.array(layerArbitrary, { maxLength: 25 }), fc.array(fc.nat(), { maxLength: 15 }), (names, removals) => {
      const map = new LayerMap<MappedLayer>();
      let layers: MappedLayer[] = [];
      for (const name of names) {
        if (map.has(name)) continue;
        const layer = { name };
        map.add(layer);
        layers.push(layer);
      }
      for (const draw of removals) {
        if (layers.length === 0) break;
        const victim = layers[draw % layers.length];
        map.remove(victim);
        layers = layers.filter((layer) => layer !== victim);
      }
      expect(map.size).toBe(layers.length);
      for (let n = 0; n < 18; n++) {
        for (let end = 1; end < 45; end += 3) {
          const found = map.search(key(n), end);
          const expected = naive(layers, n, end);
          if (expected === null) expect(found).toBeNull();
          else expect({ kind: found?.layer.name.kind, floor: found?.lsnFloor }).toEqual(expected);
          if (found !== null) expect(covers(found.layer.name, n)).toBe(true);
        }
        const images = layers.filter(({ name }) => name.kind === "image" && covers(name, n)).map(({ name }) => layerLsnRange(name).start);
        expect(map.coveredByImages({ start: key(n), end: key(n + 1) }, { from: 10, to: 20 })).toBe(Math.max(0, ...images.filter((lsn) => lsn < 20)) >= 10);
      }
    }),
    { numRuns: 200 },
  );
});

test("parts of a range join to the range, and each lies within one set of layers", () => {
  fc.assert(
    fc.property(fc.array(layerArbitrary, { maxLength: 15 }), fc.nat(10), fc.integer({ min: 1, max: 8 }), (names, start, width) => {
      const map = new LayerMap<MappedLayer>();
      for (const name of names) if (!map.has(name)) map.add({ name });
      const parts = map.partsOf({ start: key(start), end: key(start + width) });
      expect(parts[0].start).toEqual(key(start));
      expect(parts[parts.length - 1].end).toEqual(key(start + width));
      for (let i = 1; i < parts.length; i++) expect(parts[i].start).toEqual(parts[i - 1].end);
      for (const part of parts) {
        for (const name of names) {
          const inside = Array.from({ length: part.end.field6 - part.start.field6 }, (_, i) => covers(name, part.start.field6 + i));
          expect(new Set(inside).size).toBe(1);
        }
      }
    }),
  );
});
