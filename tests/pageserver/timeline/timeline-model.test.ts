/**
 * Timelines against a naive map, under random puts, flushes, compactions, GC, leases, branches, deletions, offloading, evictions, restarts, power
 * cuts and takeovers by the next generation while the old one goes on, on a virtual disk and clock; object storage fails now and then.
 *
 *   STRATA_MODEL_SEED=7 STRATA_MODEL_STEPS=5000 bun test tests/pageserver/timeline/timeline-model.test.ts --timeout 600000
 */
import { expect, test } from "bun:test";
import { describeError, invariant, isStrataError } from "../../../src/kit/errors.ts";
import type { KeyValue } from "../../../src/interpret/value.ts";
import type { Key } from "../../../src/keyspace/key.ts";
import { slruBlockKey } from "../../../src/keyspace/mapping.ts";
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import { type VirtualMachine, VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import { FaultInjectingStorage, type FaultPlan, NO_FAULTS } from "../../../src/remote-storage/fault-injecting.ts";
import { restFor, wakeAll } from "./model-rest.ts";
import { NaiveTimeline } from "./naive-timeline.ts";
import { type StorageFixture, storageFixture } from "./storage-fixture.ts";

const SEED = Number(process.env.STRATA_MODEL_SEED ?? Math.floor(Math.random() * 2 ** 31));
const STEPS = Number(process.env.STRATA_MODEL_STEPS ?? 600);
const KEYS = 32;
const START_LSN = 0x10000;
const MAX_TIMELINES = 6;
const CONTEXT = { task: "test" };
const FAULTS: FaultPlan = { ...NO_FAULTS, failBefore: 0.02, failAfter: 0.02, cutDownload: 0.02, staleList: 0.1, maxLatencyMs: 20 };
const XIDS_PER_BLOCK = 8192 * 4;
const LEASE_MAX_MS = 60_000;

function keyOf(index: number): Key {
  return slruBlockKey("clog", 0, index);
}

/** Pages with a commit's time behind them are not cached, others are: half of them are of each kind. */
function hasCommits(key: Key): boolean {
  return key.field6 % 2 === 1;
}

class ModelRun {
  readonly random: SeededRandom;
  readonly fixture: StorageFixture;
  readonly machine: VirtualMachine;
  readonly naive = new Map<string, NaiveTimeline>();
  #attached: { storage: FaultInjectingStorage; manager: TimelineManager } | null = null;
  generation = 0;
  crashes = 0;
  faults = 0;
  operations = 0;
  /** The timeline that was deleted last, perhaps not to the end. */
  deleting = "";
  comparisons = 0;
  readsNow = 0;
  readonly #target = { bytes: new Uint8Array(8192 + 5), at: 5 };
  takeovers = 0;
  rests = 0;
  leasedReads = 0;
  /** Granted by the present process, which alone remembers them. */
  #leases: { readonly id: string; readonly lsn: number }[] = [];
  #nextId = 1;
  #directory: string;

  constructor(fixture: StorageFixture, machine: VirtualMachine, random: SeededRandom) {
    this.fixture = fixture;
    this.machine = machine;
    this.random = random;
    this.#directory = fixture.directory;
  }

  get storage(): FaultInjectingStorage {
    invariant(this.#attached !== null, "attached");
    return this.#attached.storage;
  }

  get manager(): TimelineManager {
    invariant(this.#attached !== null, "attached");
    return this.#attached.manager;
  }

  async attach(options: { readonly beside?: boolean } = {}): Promise<void> {
    this.#leases = [];
    this.faults += this.#attached?.storage.faults ?? 0;
    const storage = new FaultInjectingStorage(this.fixture.bucket, { clock: this.fixture.platform.clock, random: this.random });
    this.#attached = { storage, manager: await this.fixture.attach(++this.generation, { ...options, directory: this.#directory, bucket: storage }) };
    storage.plan = FAULTS;
    await retried(() => this.manager.loadTimelines());
  }

  #newId(): string {
    return (this.#nextId++).toString(16).padStart(32, "0");
  }

  #pick(): { timeline: Timeline; naive: NaiveTimeline; id: string } {
    const ids = [...this.naive.keys()];
    const id = ids[this.random.below(ids.length)];
    return { id, timeline: this.manager.get(id), naive: this.naive.get(id) as NaiveTimeline };
  }

  async createRoot(): Promise<void> {
    const id = this.#newId();
    const timeline = await this.manager.createTimeline({ timelineId: id, initdbLsn: START_LSN, pgVersion: 17 });
    const naive = new NaiveTimeline(0);
    this.naive.set(id, naive);
    await this.#putAt({ timeline, naive }, START_LSN, Array.from({ length: KEYS }, (_, i) => this.#image(keyOf(i), START_LSN)));
    await timeline.freezeAndFlush();
    await timeline.waitUploaded();
  }

  #image(key: Key, lsn: number): KeyValue {
    return { key, lsn, value: { kind: "image", bytes: new Uint8Array(8192).fill(this.random.below(4)) } };
  }

  #change(key: Key, lsn: number): KeyValue {
    if (this.random.float() < 0.03) return this.#image(key, lsn);
    const xids = Array.from({ length: 1 + this.random.below(3) }, () => key.field6 * XIDS_PER_BLOCK + this.random.below(XIDS_PER_BLOCK));
    return { key, lsn, value: { kind: "neon", record: hasCommits(key) && this.random.float() < 0.5 ? { type: "clog-set-committed", xids, timestamp: BigInt(lsn) } : { type: "clog-set-aborted", xids } } };
  }

  async #putAt({ timeline, naive }: { timeline: Timeline; naive: NaiveTimeline }, lsn: number, values: KeyValue[]): Promise<void> {
    const previous = timeline.lastRecordLsn;
    await timeline.put(values);
    for (const value of values) naive.put(value);
    naive.lastRecordLsn = lsn;
    timeline.advance(lsn, previous);
    this.operations += values.length;
  }

  async put(): Promise<void> {
    const { timeline, naive } = this.#pick();
    for (let i = this.random.below(40); i >= 0; i--) {
      const lsn = timeline.lastRecordLsn + 8 * (1 + this.random.below(20));
      const keys = new Set(Array.from({ length: 1 + this.random.below(3) }, () => this.random.below(KEYS)));
      await this.#putAt({ timeline, naive }, lsn, [...keys].map((index) => this.#change(keyOf(index), lsn)));
    }
  }

  async read(): Promise<void> {
    const { timeline, naive, id } = this.#pick();
    const low = Math.max(timeline.gcCutoffLsn, timeline.ancestor?.lsn ?? START_LSN);
    const lsn = low + this.random.below(timeline.lastRecordLsn - low + 1);
    await this.#compare({ timeline, naive, id }, lsn);
  }

  async #compare({ timeline, naive, id }: { timeline: Timeline; naive: NaiveTimeline; id: string }, lsn: number): Promise<void> {
    const keys = Array.from({ length: 1 + this.random.below(32) }, () => keyOf(this.random.below(KEYS)));
    const leased = lsn < timeline.gcCutoffLsn;
    const pages = await timeline.getVectored(keys, lsn, { ...CONTEXT, cachePages: this.random.float() < 0.7 });
    const lapsed = lsn < timeline.gcCutoffLsn && !timeline.leases.has(lsn);
    for (let i = 0; i < keys.length; i++) {
      const page = pages[i];
      // Overtaken by a collection that ran beside it, or by the end of its lease.
      if (lapsed && (leased || isStrataError(page, "lsn-garbage-collected"))) continue;
      if (page instanceof Error) throw new Error(`seed ${SEED}: timeline ${id} block ${keys[i].field6} at ${lsn}`, { cause: page });
      const expected = naive.get(keys[i], lsn);
      if (expected === null || Buffer.compare(page, expected) !== 0) throw new Error(`seed ${SEED}: timeline ${id} block ${keys[i].field6} at ${lsn} differs`);
      this.comparisons++;
      this.#readNow({ timeline, expected, id }, keys[i], lsn);
    }
    this.operations += keys.length;
  }

  /** The page without waiting, where that is possible: from the cache, or from layers at hand. */
  #readNow({ timeline, expected, id }: { timeline: Timeline; expected: Uint8Array; id: string }, key: Key, lsn: number): void {
    if (lsn < timeline.gcCutoffLsn || !timeline.readPageNow(key, lsn, this.#target)) return;
    if (Buffer.compare(this.#target.bytes.subarray(this.#target.at), expected) !== 0) throw new Error(`seed ${SEED}: timeline ${id} block ${key.field6} at ${lsn} differs when read at once`);
    this.readsNow++;
  }

  /** A read while the timelines change. */
  async race(): Promise<void> {
    const reading = this.read();
    // A failure is told by the await below.
    reading.catch(() => {});
    const others = [() => this.put(), () => this.flush(), () => this.compact(), () => this.collect(), () => this.evict()];
    await Promise.all([reading, others[this.random.below(others.length)]()]);
  }

  /** A lease at a random LSN of the past; reads there go on until it ends, whatever is collected. */
  async lease(): Promise<void> {
    const { timeline, id } = this.#pick();
    const low = Math.max(timeline.gcCutoffLsn, timeline.ancestor?.lsn ?? START_LSN);
    const lsn = low + this.random.below(timeline.lastRecordLsn - low + 1);
    timeline.leases.grant(lsn, 1 + this.random.below(LEASE_MAX_MS));
    this.#leases = [...this.#leases.filter((lease) => this.naive.has(lease.id) && this.manager.get(lease.id).leases.has(lease.lsn)), { id, lsn }];
    if (this.random.float() < 0.5) return;
    await this.manager.maintenanceOf(id).collectGarbage();
    await this.readLeased();
  }

  async readLeased(): Promise<void> {
    const valid = this.#leases.filter(({ id, lsn }) => this.naive.has(id) && this.manager.get(id).leases.has(lsn));
    if (valid.length === 0) return;
    const { id, lsn } = valid[this.random.below(valid.length)];
    const timeline = this.manager.get(id);
    await this.#compare({ timeline, naive: this.naive.get(id) as NaiveTimeline, id }, lsn);
    if (lsn < timeline.gcCutoffLsn) this.leasedReads++;
  }

  /** The next generation attaches elsewhere while this process goes on, deletes nothing and promises nothing any more. */
  async takeOver(): Promise<void> {
    const [old, oldStorage, oldQueue] = [this.manager, this.storage, this.fixture.deletionQueue];
    const promised = new Map(old.timelineIds.map((id) => [id, old.get(id).remoteConsistentLsn]));
    this.#directory = `${this.fixture.directory}-taken-${this.generation}`;
    oldStorage.plan = NO_FAULTS;
    await this.attach({ beside: true });
    await this.#catchUp();
    for (let i = 0; i < 6; i++) {
      const stale = old.timelineIds[this.random.below(old.timelineIds.length)];
      await old.get(stale).freezeAndFlush();
      await unlessCollected(old.maintenanceOf(stale).compact({ forceL0: true, forceImages: this.random.float() < 0.5 }));
      await unlessCollected(old.maintenanceOf(stale).collectGarbage());
      await oldQueue.flush();
      await this.put();
      await retried(() => this.collect());
      await retried(() => this.read());
    }
    for (const [id, lsn] of promised) expect(old.get(id).remoteConsistentLsn).toBe(lsn);
    await old.shutdown({ flush: this.random.float() < 0.5 });
    await oldQueue.shutdown();
    this.takeovers++;
  }

  async branch(): Promise<void> {
    if (this.naive.size >= MAX_TIMELINES) return;
    const { timeline, naive, id } = this.#pick();
    const low = Math.max(timeline.gcCutoffLsn, timeline.ancestor?.lsn ?? START_LSN);
    // At a record, or right before one: where being off by one shows.
    const records = naive.after(low);
    const lsn = records.length === 0 ? timeline.lastRecordLsn : Math.max(low, records[this.random.below(records.length)].lsn - this.random.below(2) * 8);
    const child = this.#newId();
    await this.manager.createBranch({ timelineId: child, ancestorTimelineId: id, lsn });
    this.naive.set(child, new NaiveTimeline(lsn, { timeline: naive, lsn }));
  }

  async deleteLeaf(): Promise<void> {
    const { timeline, id } = this.#pick();
    if (timeline.branchPoints.size > 0 || this.naive.size === 1) return;
    this.deleting = id;
    await this.manager.deleteTimeline(id);
    this.naive.delete(id);
  }

  /** In object storage alone, while its ancestor's garbage is collected. */
  async rest(): Promise<void> {
    const { timeline, id } = this.#pick();
    if (timeline.branchPoints.size > 0 || this.naive.size === 1) return;
    const { manager } = this;
    const below = timeline.ancestor?.timelineId ?? null;
    const between = async (): Promise<void> => void (below !== null && (await manager.maintenanceOf(below).collectGarbage()));
    await restFor(manager, id, { between, retried });
    this.rests++;
  }

  async flush(): Promise<void> {
    await this.#pick().timeline.freezeAndFlush();
  }

  async compact(): Promise<void> {
    await this.manager.maintenanceOf(this.#pick().id).compact({ forceL0: this.random.float() < 0.7, forceImages: this.random.float() < 0.5 });
  }

  async collect(): Promise<void> {
    await this.manager.maintenanceOf(this.#pick().id).collectGarbage();
    if (this.random.float() < 0.5) await this.fixture.deletionQueue.flush().catch(() => {});
  }

  async evict(): Promise<void> {
    for (const layer of this.#pick().timeline.stack.map.layers()) if (this.random.float() < 0.5) await layer.evict();
  }

  /** With or without an orderly end; with the local files or without. */
  async restart(): Promise<void> {
    this.storage.plan = NO_FAULTS;
    await this.manager.shutdown({ flush: this.random.float() < 0.5 });
    if (this.random.float() < 0.3) this.#directory = `${this.fixture.directory}-${this.generation}`;
    await this.attach();
    await this.#catchUp();
  }

  /** Power is cut somewhere inside an action. What was promised to others must be there again. */
  async crash(action: () => Promise<void>): Promise<void> {
    const promised = new Map([...this.naive.keys()].map((id) => [id, this.manager.get(id)]));
    const lsns = () => new Map([...promised].map(([id, timeline]) => [id, timeline.remoteConsistentLsn]));
    const known = new Set(this.naive.keys());
    action().catch(() => {});
    // On the world's own clock: the machine's would die with it.
    await this.worldSleep(this.random.below(60));
    const visible = lsns();
    this.machine.crash();
    this.crashes++;
    this.machine.boot();
    await this.fixture.reboot();
    await this.attach();
    await wakeAll(this.manager, retried);
    this.#acceptHalfDone(known);
    for (const [id, lsn] of visible) if (this.naive.has(id)) expect(this.manager.get(id).lastRecordLsn).toBeGreaterThanOrEqual(lsn);
    await this.#catchUp();
  }

  worldSleep: (durationMs: number) => Promise<void> = () => Promise.resolve();

  /** A branch or deletion under way at the crash may have come about, or not. */
  #acceptHalfDone(known: ReadonlySet<string>): void {
    const found = new Set(this.manager.timelineIds);
    for (const id of found) {
      if (this.naive.has(id)) continue;
      const { ancestor } = this.manager.get(id);
      const parent = ancestor === null ? undefined : this.naive.get(ancestor.timelineId);
      invariant(ancestor !== null && parent !== undefined && !known.has(id), `timeline ${id} came from nowhere`);
      this.naive.set(id, new NaiveTimeline(ancestor.lsn, { timeline: parent, lsn: ancestor.lsn }));
    }
    const gone = [...this.naive.keys()].filter((id) => !found.has(id));
    expect(gone.length).toBeLessThanOrEqual(1);
    for (const id of gone) {
      expect(this.deleting).toBe(id);
      this.naive.delete(id);
    }
  }

  /** WAL that had not been flushed comes again, as from safekeepers. */
  async #catchUp(): Promise<void> {
    expect([...this.manager.brokenTimelines].map(([id, error]) => `${id}: ${describeError(error)}`)).toEqual([]);
    expect(new Set(this.manager.timelineIds)).toEqual(new Set(this.naive.keys()));
    for (const [id, naive] of this.naive) {
      const timeline = this.manager.get(id);
      const durable = timeline.lastRecordLsn;
      expect(durable).toBeLessThanOrEqual(naive.lastRecordLsn);
      for (const value of naive.after(durable)) {
        if (value.lsn > timeline.lastRecordLsn + 1) timeline.advance(value.lsn - 1, durable);
        await timeline.put([value]);
      }
      if (naive.lastRecordLsn > durable) timeline.advance(naive.lastRecordLsn, durable);
    }
  }
}

/** Whoever was overtaken may miss layers that the newer generation has collected. */
async function unlessCollected(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!isStrataError(error, "layer-object-missing")) throw error;
  }
}

/** Restarts and takeovers, by their place below: under way when the power is cut they are no more than a crash without one. */
const WHOLE = new Set([9, 12]);

async function runModel(world: VirtualWorld, steps: number): Promise<ModelRun> {
  const machine = world.machine("pageserver");
  const random = world.random.fork("model");
  machine.faults = { latencyMs: () => random.float() * 0.5 };
  const fixture = await storageFixture({ machine, cacheBytes: 256 * 1024 });
  fixture.log.expectWarn(/will try again|upload failed|could not be finished/);
  fixture.liveKeys = () => Array.from({ length: KEYS }, (_, i) => keyOf(i));
  fixture.config = { ...fixture.config, checkpointDistanceBytes: 64 * 1024, compactionTargetSizeBytes: 48 * 1024, compactionThreshold: 3, imageLayerCreationCheckThreshold: 1 };
  const run = new ModelRun(fixture, machine, random);
  run.worldSleep = (durationMs) => world.clock.sleep(durationMs);
  await run.attach();
  await run.createRoot();
  const actions: [number, () => Promise<void>][] = [
    [30, () => run.put()],
    [40, () => run.read()],
    [10, () => run.race()],
    [8, () => run.flush()],
    [8, () => run.compact()],
    [4, () => run.collect()],
    [4, () => run.evict()],
    [3, () => run.branch()],
    [1, () => run.deleteLeaf()],
    [2, () => run.restart()],
    [3, () => run.lease()],
    [6, () => run.readLeased()],
    [0.5, () => run.takeOver()],
    [1, () => run.rest()],
  ];
  const total = actions.reduce((sum, [weight]) => sum + weight, 0);
  const draw = () => {
    let left = random.float() * total;
    return actions.find(([weight]) => (left -= weight) < 0)?.[1] ?? (() => run.read());
  };
  for (let step = 0; step < steps; step++) {
    const action = draw();
    if (random.float() < 0.03) await run.crash(WHOLE.has(actions.findIndex(([, one]) => one === action)) ? () => run.read() : action);
    else await retried(action);
  }
  for (let i = 0; i < 50; i++) await retried(() => run.read());
  run.storage.plan = NO_FAULTS;
  await run.manager.shutdown({ flush: true });
  await fixture.close();
  fixture.log.assertQuiet();
  return run;
}

test(`timelines agree with a naive map (seed ${SEED}, ${STEPS} steps)`, () => {
  const world = new VirtualWorld({ seed: SEED });
  const run = world.clock.run(() => runModel(world, STEPS), { maxMs: 1e9, maxSteps: 1e9 });
  expect(run.comparisons).toBeGreaterThan(STEPS);
  expect(run.readsNow).toBeGreaterThan(STEPS / 4);
  console.log(`model: ${run.operations} operations, ${run.comparisons} pages compared and ${run.readsNow} again when read at once, ${run.generation - run.crashes - 1} restarts, ${run.crashes} power cuts, ${run.takeovers} takeovers, ${run.rests} offloaded for a while, ${run.leasedReads} reads under a lease below the cutoff, ${run.faults} storage faults, seed ${SEED}`);
}, 600_000);

/** Injected storage faults reach some callers: those are told to try again, and do. */
async function retried(action: () => Promise<void>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await action();
    } catch (error) {
      let cause: unknown = error;
      while (cause instanceof Error && !/injected/.test(cause.message)) cause = cause.cause;
      if (cause === undefined || attempt >= 20) throw error;
    }
  }
}
