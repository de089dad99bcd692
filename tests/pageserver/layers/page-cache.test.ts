import { expect, test } from "bun:test";
import fc from "fast-check";
import type { Key } from "../../../src/keyspace/key.ts";
import { CACHED_PAGE_SIZE, PageCache } from "../../../src/pageserver/layers/page-cache.ts";

const SLOTS = 16;

function keyOf(number: number): Key {
  return { field1: number & 1, field2: 1663, field3: 5 + (number % 3), field4: 16384 + (number >> 3), field5: number % 2, field6: number >> 1 };
}

/** Bytes that tell whose they are. */
function pageOf(owner: number, number: number, version: number): Uint8Array {
  const page = new Uint8Array(CACHED_PAGE_SIZE).fill(version & 0xff);
  new DataView(page.buffer).setUint32(0, owner * 1_000_000 + number * 1000 + version);
  return page;
}

const operation = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("put" as const), owner: fc.integer({ min: 1, max: 3 }), number: fc.nat(12), version: fc.nat(9), knownFor: fc.nat(3) }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("look" as const), owner: fc.integer({ min: 1, max: 3 }), number: fc.nat(12) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("drop" as const), owner: fc.integer({ min: 1, max: 3 }) }) },
);

test("what is found is what was put last for that owner and key, in no more slots than there are", () => {
  let found = 0;
  fc.assert(
    fc.property(fc.array(operation, { minLength: 200, maxLength: 300 }), (operations) => {
      const cache = new PageCache({ capacityBytes: 1 });
      expect(cache.slotCount).toBe(SLOTS);
      const model = new Map<string, { version: number; knownTo: number }>();
      const into = new Uint8Array(CACHED_PAGE_SIZE + 3);
      for (const step of operations) {
        if (step.kind === "drop") {
          cache.dropOwner(step.owner);
          for (const id of model.keys()) if (id.startsWith(`${step.owner}/`)) model.delete(id);
          continue;
        }
        const { owner, number } = step;
        const id = `${owner}/${number}`;
        const slot = cache.find(owner, keyOf(number));
        const known = model.get(id);
        if (slot >= 0) {
          found++;
          if (known === undefined) throw new Error("found what was never put");
          cache.copyInto(slot, into, 3);
          expect(Buffer.compare(into.subarray(3), pageOf(owner, number, known.version))).toBe(0);
          expect(cache.knownTo[slot]).toBe(known.knownTo);
          expect(cache.fromLsn[slot]).toBe(known.version);
        }
        if (step.kind === "look") continue;
        const knownTo = step.version + step.knownFor;
        cache.put(owner, keyOf(number), { page: pageOf(owner, number, step.version), fromLsn: step.version, knownTo });
        // A slot that knows of a later LSN stays; one that was given away meanwhile does not count.
        if (slot < 0 || known === undefined || knownTo > known.knownTo) model.set(id, { version: step.version, knownTo });
        expect(cache.find(owner, keyOf(number))).toBeGreaterThanOrEqual(0);
      }
      expect(cache.sizeBytes).toBeLessThanOrEqual(SLOTS * CACHED_PAGE_SIZE);
    }),
    { numRuns: 60 },
  );
  expect(found).toBeGreaterThan(100);
});

test("a page that is used stays, others make room", () => {
  const cache = new PageCache({ capacityBytes: 1 });
  const into = new Uint8Array(CACHED_PAGE_SIZE);
  const owner = cache.newOwner();
  cache.put(owner, keyOf(1000), { page: pageOf(owner, 0, 1), fromLsn: 1, knownTo: 1 });
  for (let number = 0; number < 200; number++) {
    const slot = cache.find(owner, keyOf(1000));
    expect(slot).toBeGreaterThanOrEqual(0);
    cache.copyInto(slot, into, 0);
    cache.put(owner, keyOf(number), { page: pageOf(owner, 1, 2), fromLsn: 1, knownTo: 1 });
  }
});
