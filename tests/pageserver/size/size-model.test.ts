import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { sizeInputs, type TimelineFacts, wantsSize } from "../../../src/pageserver/size/size-inputs.ts";
import { type SizeSegment, tenantSize } from "../../../src/pageserver/size/size-model.ts";

const segment = (parent: number | null, lsn: number, rest: { size?: number | null; needed?: boolean } = {}): SizeSegment => ({ parent, lsn, size: rest.size ?? null, needed: rest.needed ?? false });

/** The cheapest of all ways to keep what is needed, tried one by one; infinite when there is none. */
function cheapest(segments: readonly SizeSegment[]): number {
  const methods = ["wal", "snapshot", "skip"] as const;
  let best = Number.POSITIVE_INFINITY;
  for (let code = 0; code < 3 ** segments.length; code++) {
    const chosen = segments.map((_, at) => methods[Math.floor(code / 3 ** at) % 3]);
    let cost = 0;
    const valid = segments.every(({ parent, lsn, size, needed }, at) => {
      if (chosen[at] === "skip") return !needed;
      if (chosen[at] === "snapshot") {
        cost += size ?? 0;
        return size !== null && (parent === null || !needed);
      }
      cost += lsn - (parent === null ? lsn : segments[parent].lsn);
      return parent !== null && chosen[parent] !== "skip";
    });
    if (valid) best = Math.min(best, cost);
  }
  return best;
}

describe("model", () => {
  test("finds what trying everything finds", () => {
    const tree = fc.array(fc.record({ parent: fc.nat(), walBytes: fc.nat(50), size: fc.option(fc.nat(100)), needed: fc.boolean() }), { minLength: 1, maxLength: 7 });
    fc.assert(
      fc.property(tree, (nodes) => {
        const segments: SizeSegment[] = [];
        nodes.forEach(({ parent, walBytes, size, needed }, at) => {
          const above = at === 0 ? null : parent % at;
          segments.push(segment(above, above === null ? 0 : segments[above].lsn + walBytes, { size, needed }));
        });
        const best = cheapest(segments);
        expect(tenantSize(segments).totalSizeBytes).toBe(Math.max(1, best === Number.POSITIVE_INFINITY ? 0 : best));
      }),
      { numRuns: 400 },
    );
  });

  test("what is printed adds up: snapshots and stretches of WAL that were chosen are the total", () => {
    const segments = [segment(null, 0, { size: 5000 }), segment(0, 9000, { size: 5000 }), segment(1, 10_000, { needed: true }), segment(1, 9500, { needed: true })];
    const result = tenantSize(segments);
    expect(result.totalSizeBytes).toBe(5000 + 1000 + 500);
    expect(result.segments.map(({ method }) => method)).toEqual(["Skipped", "SnapshotHere", "Wal", "Wal"]);
    expect(result.segments.map((one) => one.accum_size)).toEqual([6500, 6500, 1000, 500]);
  });

  test("nothing kept is one byte; a chain of 100,000 points is no trouble", () => {
    expect(tenantSize([]).totalSizeBytes).toBe(1);
    const chain = Array.from({ length: 100_000 }, (_, at) => segment(at === 0 ? null : at - 1, at, { size: at === 0 ? 10 : null, needed: at > 0 }));
    expect(tenantSize(chain).totalSizeBytes).toBe(10 + 99_999);
  });
});

describe("points of interest", () => {
  const ROOT = "aa".repeat(16) as TimelineFacts["timelineId"];
  const BRANCH = "bb".repeat(16) as TimelineFacts["timelineId"];
  const root: TimelineFacts = { timelineId: ROOT, ancestor: null, initdbLsn: 100, lastRecordLsn: 1000, gcCutoffLsn: 100, pitrCutoffLsn: 600, leases: [] };
  const branch: TimelineFacts = { timelineId: BRANCH, ancestor: { timelineId: ROOT, lsn: 400 }, initdbLsn: 100, lastRecordLsn: 500, gcCutoffLsn: 400, pitrCutoffLsn: 0, leases: [] };
  const shape = (facts: readonly TimelineFacts[], retention: number | null = null) => sizeInputs(facts, retention).segments.map(({ kind, segment: { parent, lsn, needed } }) => `${kind}@${lsn}<${parent ?? "-"}${needed ? "!" : ""}`);

  test("a timeline, and its branch", () => {
    expect(shape([root])).toEqual(["BranchStart@100<-", "GcCutOff@600<0", "BranchEnd@1000<1!"]);
    expect(shape([root, branch])).toEqual(["BranchStart@100<-", "BranchPoint@400<0", "GcCutOff@600<1", "BranchEnd@1000<2!", "BranchStart@400<1!", "BranchEnd@500<4!"]);
    expect(shape([branch])).toEqual(["BranchStart@400<-!", "BranchEnd@500<0!"]);
    expect(sizeInputs([branch], null).segments.map(wantsSize)).toEqual([true, false]);
    expect(sizeInputs([root, branch], null).segments.map(wantsSize)).toEqual([false, true, true, false, false, false]);
  });

  test("a lease is a branch without writes", () => {
    expect(shape([{ ...root, leases: [300, 100] }])).toEqual([
      "BranchStart@100<-", "LeasePoint@100<0", "LeaseStart@100<1", "LeaseEnd@100<2!", "LeasePoint@300<1", "LeaseStart@300<4", "LeaseEnd@300<5!", "GcCutOff@600<4", "BranchEnd@1000<7!",
    ]);
  });

  test("a bound of the caller's own shortens the history that counts", () => {
    expect(shape([root], 100)).toEqual(["BranchStart@100<-", "GcCutOff@900<0", "BranchEnd@1000<1!"]);
    expect(sizeInputs([root], 100).timeline_inputs[0]).toMatchObject({ next_pitr_cutoff: "0/384", retention_param_cutoff: "0/384", last_record: "0/3E8" });
    expect(shape([root], 10_000)).toEqual(shape([root]));
  });
});
