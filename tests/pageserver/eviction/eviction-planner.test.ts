import { expect, test } from "bun:test";
import fc from "fast-check";
import { type EvictionCandidate, planEviction as planInSteps } from "../../../src/pageserver/eviction/eviction-planner.ts";

/** The plan after all its steps. */
function planEviction<L>(...of: Parameters<typeof planInSteps<L>>) {
  const steps = planInSteps<L>(...of);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

const order = { highestLayerCountLosesFirst: true };
const candidate = (tenant: string, lastAccessMs: number, sizeBytes = 10): EvictionCandidate<string> => ({ layer: `${tenant}${lastAccessMs}`, tenant, sizeBytes, lastAccessMs });

test("the coldest share of each tenant goes first; what it wants to keep comes last", () => {
  const candidates = [candidate("a", 1), candidate("a", 2), candidate("a", 3), candidate("a", 4), candidate("b", 10), candidate("b", 11)];
  const plan = planEviction(candidates, { order, wantedBytes: 60, minResidentBytes: () => null });
  expect(new Set(plan.layers.slice(0, 4).map(({ layer }) => layer))).toEqual(new Set(["a1", "b10", "a2", "a3"]));
  expect(plan.layers[0].layer).toBe("a1");
  expect(plan.respectful).toBe(4);
});

test("no more than is wanted; a tenant's wish to keep more is heard", () => {
  const candidates = Array.from({ length: 10 }, (_, at) => candidate("a", at));
  expect(planEviction(candidates, { order, wantedBytes: 25, minResidentBytes: () => null }).layers.map(({ layer }) => layer)).toEqual(["a0", "a1", "a2"]);
  const plan = planEviction(candidates, { order, wantedBytes: 70, minResidentBytes: () => 50 });
  expect([plan.layers.length, plan.respectful]).toEqual([7, 5]);
  expect(planEviction(candidates, { order, wantedBytes: 0, minResidentBytes: () => null }).layers).toEqual([]);
});

test("of any tenants: within one the colder goes before the hotter, and the hottest of each is kept while others can go", () => {
  const some = fc.array(fc.record({ tenant: fc.constantFrom("a", "b", "c"), lastAccessMs: fc.nat(1000), sizeBytes: fc.integer({ min: 1, max: 100 }) }), { maxLength: 40 });
  fc.assert(
    fc.property(some, fc.nat(3000), fc.boolean(), (all, wantedBytes, highestLayerCountLosesFirst) => {
      const candidates = all.map((one, at) => ({ ...one, layer: at }));
      const { layers, respectful } = planEviction(candidates, { order: { highestLayerCountLosesFirst }, wantedBytes, minResidentBytes: () => null });
      for (const tenant of ["a", "b", "c"]) {
        const own = layers.slice(0, respectful).filter((one) => one.tenant === tenant).map((one) => one.lastAccessMs);
        expect(own).toEqual(own.toSorted((x, y) => x - y));
        if (own.length > 0) expect(candidates.some((one) => one.tenant === tenant && !layers.slice(0, respectful).some(({ layer }) => layer === one.layer))).toBe(true);
      }
      const bytes = layers.reduce((sum, one) => sum + one.sizeBytes, 0);
      const total = candidates.reduce((sum, one) => sum + one.sizeBytes, 0);
      expect(bytes >= Math.min(wantedBytes, total)).toBe(true);
      expect(bytes - (layers.at(-1)?.sizeBytes ?? 0) < Math.max(1, wantedBytes)).toBe(true);
    }),
  );
});
