/** Events from facts: the peer's cases, its texts, and no byte twice or left out whatever happens between two rounds. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { displayTimes, eventTime, type EventTime, laterOf, parseEventTime } from "../../../src/pageserver/consumption/event-time.ts";
import { type EventGroup, eventTexts, inRequests, type Reading, type ReadingGroup, requestBody } from "../../../src/pageserver/consumption/events.ts";
import { IdempotencyKeys } from "../../../src/pageserver/consumption/idempotency-keys.ts";
import { Outbox } from "../../../src/pageserver/consumption/outbox.ts";
import { tenantReadings, type TimelineFacts, timelineReadings } from "../../../src/pageserver/consumption/readings.ts";

setDefaultTimeout(60_000);

const TENANT = "0".repeat(32);
const TIMELINE = "f".repeat(32);
const at = (seconds: number): EventTime => eventTime(1_700_000_000_000 + seconds * 1000);

function facts(changes: Partial<TimelineFacts> = {}): TimelineFacts {
  return { loadedAt: { lsn: 50, time: at(0) }, lastRecordLsn: 50, ancestorLsn: 0, logicalSizeBytes: null, pitrIntervalMs: 1000, pitrCutoffLsn: null, ...changes };
}
function group(readings: readonly Reading[]): ReadingGroup {
  return { tenantId: TENANT, timelineId: TIMELINE, readings };
}
function told(readings: readonly Reading[]): Record<string, unknown> {
  return Object.fromEntries(readings.map(({ metric, kind, value }) => [metric, kind.type === "absolute" ? [kind.time, value] : [kind.startTime, kind.stopTime, value]]));
}

describe("a timeline", () => {
  test("first: from where it was loaded", () => {
    const readings = timelineReadings(facts({ lastRecordLsn: 70, logicalSizeBytes: 42, pitrCutoffLsn: 60 }), null, at(10));
    expect(told(readings)).toEqual({
      written_data_bytes_delta: [at(0), at(10), 20], written_size: [at(10), 70], written_size_since_parent: [at(10), 70],
      pitr_history_size_since_parent: [at(10), 10], timeline_logical_size: [at(10), 42],
    });
  });

  test("then from where the last one ended; a size that is being counted is the last one", () => {
    const first = timelineReadings(facts({ lastRecordLsn: 70, logicalSizeBytes: 42 }), null, at(10));
    expect(told(timelineReadings(facts({ lastRecordLsn: 75 }), group(first), at(30)))).toMatchObject({ written_data_bytes_delta: [at(10), at(30), 5], written_size: [at(30), 75], timeline_logical_size: [at(30), 42] });
  });

  test("from the size's time when there is no increment yet", () => {
    const before = group([{ metric: "written_size", kind: { type: "absolute", time: at(5) }, value: 60 }]);
    expect(told(timelineReadings(facts({ lastRecordLsn: 61 }), before, at(10)))).toMatchObject({ written_data_bytes_delta: [at(5), at(10), 1] });
  });

  test("never goes back after a restart that lost what was not on disk", () => {
    const before = group(timelineReadings(facts({ lastRecordLsn: 100 }), null, at(10)));
    const branch = facts({ ancestorLsn: 30, pitrCutoffLsn: 40 });
    const [during, caughtUp] = [timelineReadings(branch, before, at(20)), timelineReadings({ ...branch, lastRecordLsn: 103 }, before, at(20))];
    expect(told(during)).toMatchObject({ written_data_bytes_delta: [at(10), at(20), 0], written_size: [at(20), 100], written_size_since_parent: [at(20), 70], pitr_history_size_since_parent: [at(20), 60] });
    expect(told(caughtUp)).toMatchObject({ written_data_bytes_delta: [at(10), at(20), 3], written_size: [at(20), 103] });
  });

  test("history of the PITR interval: none without an interval, not told before GC has looked", () => {
    expect(told(timelineReadings(facts({ pitrIntervalMs: 0, pitrCutoffLsn: 10 }), null, at(1)))).toMatchObject({ pitr_history_size_since_parent: [at(1), 0] });
    expect(told(timelineReadings(facts(), null, at(1)))).not.toHaveProperty("pitr_history_size_since_parent");
  });

  test("a clock that goes back makes an empty range, and the next one goes on from there", () => {
    const first = group(timelineReadings(facts({ lastRecordLsn: 70 }), null, at(100)));
    const second = group(timelineReadings(facts({ lastRecordLsn: 80 }), first, at(40)));
    expect(told(second.readings)).toMatchObject({ written_data_bytes_delta: [at(100), at(100), 10], written_size: [at(40), 80] });
    expect(told(timelineReadings(facts({ lastRecordLsn: 81 }), second, at(120)))).toMatchObject({ written_data_bytes_delta: [at(100), at(120), 1] });
  });
});

test("a tenant: the synthetic size of before a restart until there is a new one, and none before the first", () => {
  const sizes = { remoteBytes: 1, residentBytes: 2, syntheticBytes: null };
  expect(told(tenantReadings(sizes, null, at(1)))).toEqual({ remote_storage_size: [at(1), 1], resident_size: [at(1), 2] });
  const before = group([{ metric: "synthetic_storage_size", kind: { type: "absolute", time: at(0) }, value: 7 }]);
  expect(told(tenantReadings(sizes, before, at(1)))).toHaveProperty("synthetic_storage_size", [at(1), 7]);
  expect(told(tenantReadings({ ...sizes, syntheticBytes: 9 }, before, at(1)))).toHaveProperty("synthetic_storage_size", [at(1), 9]);
});

describe("texts", () => {
  test("times have as many digits as they need; keys and events are the peer's, byte by byte", () => {
    expect([eventTime(1_694_736_000_000), eventTime(1_694_736_000_120), eventTime(1_694_736_000_123, 456_000), eventTime(1_694_736_000_123, 456_789)].map((time) => time.slice(19))).toEqual(["Z", ".120Z", ".123456Z", ".123456789Z"]);
    expect(displayTimes(1_694_736_000_123)(456_789)).toBe("2023-09-15 00:00:00.123456789 UTC");
    const time = parseEventTime("2023-09-15T00:00:00.123456789Z") as EventTime;
    const before = parseEventTime("2023-09-14T02:00:00.123456789+02:00") as EventTime;
    const idempotencyKeys = ["2023-09-15 00:00:00.123456789 UTC-1-0000", "k"];
    const events = eventTexts({ tenantId: TENANT, timelineId: TIMELINE, idempotencyKeys, readings: [{ metric: "written_size", kind: { type: "absolute", time }, value: 0 }, { metric: "written_data_bytes_delta", kind: { type: "incremental", startTime: before, stopTime: time }, value: 3 }] });
    expect(events).toEqual([
      `{"type":"absolute","time":"2023-09-15T00:00:00.123456789Z","metric":"written_size","idempotency_key":"2023-09-15 00:00:00.123456789 UTC-1-0000","value":0,"tenant_id":"${TENANT}","timeline_id":"${TIMELINE}"}`,
      `{"type":"incremental","start_time":"2023-09-14T00:00:00.123456789Z","stop_time":"2023-09-15T00:00:00.123456789Z","metric":"written_data_bytes_delta","idempotency_key":"k","value":3,"tenant_id":"${TENANT}","timeline_id":"${TIMELINE}"}`,
    ]);
    const ofTenant = { tenantId: TENANT, timelineId: null, idempotencyKeys: ["k"], readings: [{ metric: "resident_size", kind: { type: "absolute", time }, value: 5 } as const] };
    expect(requestBody([ofTenant])).toBe(`{"events":[{"type":"absolute","time":"2023-09-15T00:00:00.123456789Z","metric":"resident_size","idempotency_key":"k","value":5,"tenant_id":"${TENANT}"}]}`);
  });

  test("what is no time is none", () => {
    for (const text of ["", "2023-09-15", "2023-13-15T00:00:00Z", "2023-09-15T00:00:00", "2023-09-15T00:00:00.1234567890Z", "+12023-09-15T00:00:00Z"]) expect([text, parseEventTime(text)]).toEqual([text, null]);
    expect(laterOf("2023-09-15T00:00:00Z", "2023-09-15T00:00:00.000000001Z")).toBe("2023-09-15T00:00:00.000000001Z");
  });

  test("keys are never the same, even when the clock stands still or goes back", () => {
    let wallMs = 1000;
    const keys = new IdempotencyKeys({ nodeId: 12, clock: { wallMs: () => wallMs } as never, random: { below: (limit: number) => (limit > 10_000 ? 999_990 : limit - 1) } as never });
    const seen = new Set<string>();
    for (let count = 0; count < 20_000; count++) {
      if (count === 1000) wallMs = 10;
      seen.add(keys.next());
    }
    expect(seen.size).toBe(20_000);
    for (const key of [...seen].slice(0, 5)) expect(key).toMatch(/^1970-01-01 00:00:01\.\d{6,9} UTC-12-9999$/);
  });

  test("requests take as many groups as fit, and part none", () => {
    const sized = (count: number): EventGroup => ({ tenantId: TENANT, timelineId: TIMELINE, idempotencyKeys: [], readings: Array.from({ length: count }, () => ({ metric: "written_size", kind: { type: "absolute", time: at(0) }, value: 1 }) as const) });
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 7 })), (counts) => {
        const requests = inRequests(counts.map(sized), 10);
        expect(requests.flat().map(({ readings }) => readings.length)).toEqual(counts);
        const sums = requests.map((groups) => groups.reduce((sum, { readings }) => sum + readings.length, 0));
        for (const [index, sum] of sums.entries()) expect(sum <= 10 && (index === 0 || sums[index - 1] + requests[index][0].readings.length > 10)).toBe(true);
      }),
    );
  });
});

// ---- Whatever happens

type Step =
  | { readonly kind: "write"; readonly timeline: number; readonly bytes: number }
  | { readonly kind: "clock"; readonly ms: number }
  | { readonly kind: "round"; readonly outcomes: readonly Outcome[]; readonly crash: Crash }
  | { readonly kind: "restart"; readonly lostBytes: number };
type Outcome = "accepted" | "refused" | "lost-request" | "lost-answer";
type Crash = "none" | "before-save" | "before-send" | "while-sending" | "before-receipt";

const outcome = fc.constantFrom<Outcome>("accepted", "accepted", "refused", "lost-request", "lost-answer");
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("write" as const), timeline: fc.nat(2), bytes: fc.nat(1000) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("clock" as const), ms: fc.integer({ min: -100_000, max: 300_000 }) }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("round" as const), outcomes: fc.array(outcome, { minLength: 3, maxLength: 3 }), crash: fc.constantFrom<Crash>("none", "none", "before-save", "before-send", "while-sending", "before-receipt") }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("restart" as const), lostBytes: fc.nat(500) }) },
);

const START_LSN = 10_000;

/** Timelines, a receiver that knows an event that comes again, and a disk that keeps what was saved. */
class World {
  wallMs = 1_700_000_000_000;
  readonly lsns = [START_LSN, START_LSN, START_LSN];
  /** What the safekeepers have. */
  readonly highest = [...this.lsns];
  readonly loadedAt = { lsn: START_LSN, time: eventTime(this.wallMs) };
  /** By key: what came last under it, which has to be what came first. */
  readonly received = new Map<string, { readonly timeline: number; readonly reading: Reading }>();
  /** Deltas by timeline, in the order in which they came first. */
  readonly deltas: Reading[][] = [[], [], []];
  #disk = structuredClone({ told: [] as ReadingGroup[], unanswered: [] as EventGroup[] });
  #outbox = new Outbox();
  #nextKey = 0;

  #save(): void {
    this.#disk = structuredClone({ told: [...this.#outbox.told], unanswered: [...this.#outbox.unanswered] });
  }

  write(timeline: number, bytes: number): void {
    this.lsns[timeline] += bytes;
    this.highest[timeline] = Math.max(this.highest[timeline], this.lsns[timeline]);
  }

  restart(lostBytes: number): void {
    this.#outbox = new Outbox();
    for (const group of [...this.#disk.told, ...this.#disk.unanswered]) this.#outbox.restore(group);
    // What was not on disk is read again from the safekeepers; it may take a while.
    for (const [index, lsn] of this.lsns.entries()) this.lsns[index] = Math.max(START_LSN, lsn - lostBytes);
  }

  round(outcomes: readonly Outcome[], crash: Crash): void {
    const groups = this.lsns.map((lastRecordLsn, index) => {
      const read = (previous: ReadingGroup | null) => timelineReadings(facts({ loadedAt: this.loadedAt, lastRecordLsn }), previous, eventTime(this.wallMs));
      return this.#outbox.next({ tenantId: TENANT, timelineId: String(index) }, { read, idempotencyKey: () => String(this.#nextKey++) }).group;
    });
    if (crash === "before-save") return this.restart(0);
    this.#save();
    if (crash === "before-send") return this.restart(0);
    for (const [index, eventGroup] of groups.entries()) {
      this.#send(index, eventGroup, outcomes[index]);
      if (crash === "while-sending") return this.restart(0);
    }
    if (crash === "before-receipt") return this.restart(0);
    this.#save();
  }

  #send(timeline: number, eventGroup: EventGroup, wanted: Outcome): void {
    // What it has, it does not refuse when it comes again.
    const how = wanted === "refused" && this.received.has(eventGroup.idempotencyKeys[0]) ? "accepted" : wanted;
    if (how === "accepted" || how === "lost-answer") {
      for (const [at, reading] of eventGroup.readings.entries()) {
        const before = this.received.get(eventGroup.idempotencyKeys[at]);
        if (before !== undefined) expect(before).toEqual({ timeline, reading });
        else if (reading.metric === "written_data_bytes_delta") this.deltas[timeline].push(reading);
        this.received.set(eventGroup.idempotencyKeys[at], { timeline, reading });
      }
    }
    if (how === "accepted") this.#outbox.accepted(eventGroup);
    if (how === "refused") this.#outbox.refused(eventGroup);
  }
}

function expectContinuous(world: World): void {
  for (const deltas of world.deltas) {
    let end: EventTime = world.loadedAt.time;
    for (const { kind } of deltas) {
      if (kind.type !== "incremental") throw new Error("a delta is incremental");
      expect(kind.startTime).toBe(end);
      expect(laterOf(kind.startTime, kind.stopTime)).toBe(kind.stopTime);
      end = kind.stopTime;
    }
  }
}

test("no gap, no overlap, each byte once: lost requests and answers, refusals, crashes at any point, clocks that jump", () => {
  const seed = Number(process.env.STRATA_SEED ?? Math.floor(Math.random() * 2 ** 31));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const world = new World();
      for (const one of steps) {
        if (one.kind === "write") world.write(one.timeline, one.bytes);
        if (one.kind === "clock") world.wallMs += one.ms;
        if (one.kind === "restart") world.restart(one.lostBytes);
        if (one.kind === "round") world.round(one.outcomes, one.crash);
        expectContinuous(world);
      }
      // All that was lost is read again, and then two rounds: what was unanswered, and the rest.
      for (const [index, lsn] of world.highest.entries()) world.lsns[index] = lsn;
      for (let round = 0; round < 2; round++) world.round(["accepted", "accepted", "accepted"], "none");
      expectContinuous(world);
      expect(world.deltas.map((deltas) => START_LSN + deltas.reduce((sum, { value }) => sum + value, 0))).toEqual(world.highest);
    }),
    { numRuns: 700, seed, verbose: 1 },
  );
});
