import { expect, test } from "bun:test";
import fc from "fast-check";
import { isStrataError } from "../../src/kit/errors.ts";
import { planReconcile, type ObservedLocation } from "../../src/controller/reconciler/plan.ts";
import { placeShard } from "../../src/controller/service/placement.ts";
import { ControllerState, nodeFromRow, shardFromRow } from "../../src/controller/service/state.ts";
import { chooseNode, mayHost, type NodeView } from "../../src/controller/scheduler/scheduler.ts";

const node: fc.Arbitrary<NodeView> = fc.record({
  id: fc.nat(20), availability: fc.constantFrom("Active" as const, "WarmingUp" as const, "Offline" as const),
  scheduling: fc.constantFrom("active" as const, "pause" as const, "draining" as const, "filling" as const),
  availabilityZone: fc.constantFrom("a", "b", "c"), attachedCount: fc.nat(5), locationCount: fc.nat(5),
});
const fleet = fc.uniqueArray(node, { selector: (one) => one.id, maxLength: 8 });

test("the choice may host, is not excluded, and does not depend on the order of the fleet", () => {
  fc.assert(
    fc.property(fc.record({ nodes: fleet, role: fc.constantFrom("attached" as const, "secondary" as const), preferredAz: fc.option(fc.constantFrom("a", "b")), excluded: fc.uniqueArray(fc.nat(20)) }), ({ nodes, role, preferredAz, excluded }) => {
      const question = { role, preferredAz, exclude: new Set(excluded), affinity: new Map<number, number>() };
      const candidates = nodes.filter((one) => mayHost(one) && !question.exclude.has(one.id));
      try {
        const chosen = chooseNode(nodes, question);
        expect(candidates.map((one) => one.id)).toContain(chosen);
        expect(chooseNode([...nodes].reverse(), question)).toBe(chosen);
        const zones = candidates.map((one) => one.availabilityZone);
        const zone = candidates.find((one) => one.id === chosen)?.availabilityZone;
        if (role === "attached" && preferredAz !== null && zones.includes(preferredAz)) expect(zone).toBe(preferredAz);
      } catch (error) {
        if (!isStrataError(error, "no-pageserver")) throw error;
        expect(candidates).toEqual([]);
      }
    }),
  );
});

const location = fc.option(fc.record({ mode: fc.constantFrom("AttachedSingle" as const, "AttachedStale" as const, "Secondary" as const), generation: fc.option(fc.integer({ min: 1, max: 5 })), configJson: fc.constantFrom("{}", '{"a":1}') }));

const nodeId = fc.integer({ min: 1, max: 4 });
const situation = fc.record({
  observedById: fc.dictionary(fc.constantFrom("1", "2", "3", "4"), location),
  attached: fc.option(nodeId),
  secondaries: fc.uniqueArray(nodeId, { maxLength: 2 }),
  generation: fc.option(fc.integer({ min: 1, max: 5 })),
  holder: fc.option(nodeId),
});

test("carrying out plans step by step ends where the intent is, with one node attached under the newest generation", () => {
  fc.assert(
    fc.property(situation, ({ observedById, attached, secondaries, generation, holder }) => {
      const observed = new Map<number, ObservedLocation | null>(Object.entries(observedById).map(([id, value]) => [Number(id), value]));
      const secondary = secondaries.filter((id) => id !== attached);
      let current = generation;
      let generationNode = generation === null ? null : holder;
      for (let steps = 0; ; steps++) {
        expect(steps).toBeLessThan(30);
        const [step] = planReconcile({ intent: { attached, secondary }, observed, generation: current, generationNode, configJson: "{}", reachable: () => true });
        if (step === undefined) break;
        if (step.kind === "increment-generation") {
          current = (current ?? 0) + 1;
          generationNode = step.node;
        } else if (step.mode === "Detached") observed.delete(step.node);
        else observed.set(step.node, { mode: step.mode, generation: step.mode === "Secondary" ? null : step.mode === "AttachedStale" ? (observed.get(step.node)?.generation ?? null) : current, configJson: "{}" });
      }
      const attachedNow = [...observed].filter(([, value]) => value?.mode.startsWith("Attached") === true);
      expect(attachedNow.map(([id]) => id)).toEqual(attached === null ? [] : [attached]);
      if (attached !== null) expect(observed.get(attached)).toMatchObject({ mode: "AttachedSingle", generation: current });
      expect([...observed].filter(([, value]) => value?.mode === "Secondary").map(([id]) => id).sort()).toEqual([...secondary].sort());
    }),
    { numRuns: 2000 },
  );
});

test("a shard whose node is away, and which nobody else can take, stays that node's: it is not told to let go when it comes back", () => {
  const state = new ControllerState();
  const node = nodeFromRow({ nodeId: 1, schedulingPolicy: "active", listenHttpAddr: "h", listenHttpPort: 1, listenHttpsPort: null, listenPgAddr: "p", listenPgPort: 2, availabilityZoneId: "a" });
  state.nodes.set(1, node);
  const shard = shardFromRow({
    tenantId: "11".repeat(16), shardNumber: 0, shardCount: 0, shardStripeSize: 32768, generation: 1, generationPageserver: 1,
    placementPolicy: '{"Attached":0}', schedulingPolicy: '"Active"', config: "{}", preferredAzId: null, splitting: 0,
  });
  state.addShard(shard);
  const plan = () => planReconcile({
    intent: { attached: shard.intentAttached, secondary: shard.intentSecondary }, observed: shard.observed, generation: shard.generation, generationNode: shard.generationNode,
    configJson: "{}", reachable: (id) => state.nodes.get(id)?.availability !== "Offline",
  });
  expect(() => placeShard(state, shard)).toThrow("no pageserver can take");
  expect(shard.intentAttached).toBe(1);
  expect(plan()).toEqual([]);
  // As re-attach leaves it.
  Object.assign(shard, { generation: 2 });
  shard.observed.set(1, { mode: "AttachedSingle", generation: 2, configJson: "{}" });
  node.availability = "WarmingUp";
  expect(plan()).toEqual([]);
  placeShard(state, shard);
  expect([shard.intentAttached, plan()]).toEqual([1, []]);
});
