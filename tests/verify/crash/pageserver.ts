/**
 * A pageserver's timeline and its disk, with the bucket on the same one: the same small life (put, flush, compact, collect,
 * upload, restart), once for each of its disk operations and each way in which that operation can go wrong. Afterwards the disk is
 * healthy again: the timeline opens, has all that it called remote-consistent, and after the rest of the log came again every page
 * is right at every LSN.
 */
import { Cancelled, describeError, InvariantError, isStrataError } from "../../../src/kit/errors.ts";
import type { KeyValue } from "../../../src/interpret/value.ts";
import { slruBlockKey } from "../../../src/keyspace/mapping.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timeline/timeline-manager.ts";
import type { DiskOperation, DiskOperationKind } from "../../../src/platform/virtual/virtual-disk.ts";
import { type VirtualMachine, VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import { NaiveTimeline } from "../../pageserver/timeline/naive-timeline.ts";
import { type StorageFixture, storageFixture } from "../../pageserver/timeline/storage-fixture.ts";
import type { Fault, Point } from "./safekeeper.ts";

const CHANGES: readonly DiskOperationKind[] = ["open", "write", "truncate", "sync", "sync-directory", "rename", "remove", "make-directory"];
const TIMELINE = "11111111111111111111111111111111";
const START_LSN = 0x1000;
/** More than one buffer of the in-memory layer's file. */
const KEYS = 40;
const LIVES = 2;
const ROUNDS = 4;
const MAX_MS = 3_600_000;
const CONTEXT = { task: "crash" };

const keyOf = (index: number) => slruBlockKey("clog", Math.floor(index / 32), index % 32);

/** The operations of an undisturbed run, in order. */
export function operationsOf(seed: number): DiskOperationKind[] {
  const kinds: DiskOperationKind[] = [];
  new Run(seed, (operation) => {
    kinds.push(operation.kind);
    return undefined;
  }).run();
  return kinds;
}

/** Returns the highest remote-consistent LSN that was told. @throws Error when something below it is gone, or a page is wrong */
export function runPoint(point: Point): number {
  let operations = 0;
  let torn = false;
  const run: Run = new Run(point.seed, () => {
    const now = operations++ === point.operation;
    if (torn || (now && (point.fault === "kill" || point.fault === "power"))) run.cut(torn ? "power" : point.fault);
    torn = now && point.fault === "torn";
    return now && (point.fault === "io-error" || point.fault === "disk-full") ? point.fault : undefined;
  });
  return run.run();
}

class Run {
  readonly #world: VirtualWorld;
  readonly #machine: VirtualMachine;
  readonly #naive = new NaiveTimeline(0);
  readonly #onChange: (operation: DiskOperation) => "io-error" | "disk-full" | undefined;
  #generation = 0;
  #promisedLsn: Lsn = 0;
  #cut = false;
  readonly #ended = Promise.withResolvers<void>();

  constructor(seed: number, onChange: (operation: DiskOperation) => "io-error" | "disk-full" | undefined) {
    this.#world = new VirtualWorld({ seed });
    this.#machine = this.#world.machine("pageserver");
    this.#onChange = onChange;
  }

  /** Ends the process in the middle of an operation. */
  cut(how: Fault): never {
    this.#cut = true;
    this.#machine.faults = {};
    if (how === "kill") this.#machine.kill();
    else this.#machine.crash();
    this.#ended.resolve();
    throw new Cancelled("the process ended here");
  }

  run(): number {
    return this.#world.clock.run(async () => {
      const fixture = await storageFixture({ machine: this.#machine, cacheBytes: 256 * 1024 });
      fixture.liveKeys = () => Array.from({ length: KEYS }, (_, i) => keyOf(i));
      this.#machine.faults = { fail: (operation) => (CHANGES.includes(operation.kind) ? this.#onChange(operation) : undefined) };
      const lives = this.#lives(fixture).catch((error: unknown) => {
        if (!this.#cut) throw error;
      });
      await Promise.race([this.#ended.promise, lives]);
      await this.#afterwards(fixture);
      return this.#promisedLsn;
    }, { maxMs: MAX_MS, maxSteps: 1e9 });
  }

  async #lives(fixture: StorageFixture): Promise<void> {
    for (let life = 0; life < LIVES; life++) {
      const manager = await this.#retried(() => fixture.attach(++this.#generation));
      await this.#retried(() => manager.loadTimelines());
      this.#assertWhole(manager);
      await this.#work(manager, life);
      await manager.shutdown({ flush: life % 2 === 0 });
    }
  }

  async #work(manager: TimelineManager, life: number): Promise<void> {
    const known = manager.timelineIds.includes(TIMELINE);
    const timeline = known ? manager.get(TIMELINE) : await this.#retried(() => manager.createTimeline({ timelineId: TIMELINE, initdbLsn: START_LSN, pgVersion: 17 }));
    if (!known && life === 0) await this.#put(timeline, START_LSN, "image");
    else await this.#catchUp(timeline);
    const maintenance = manager.maintenanceOf(TIMELINE);
    for (let round = 0; round < ROUNDS; round++) {
      for (let i = 0; i < 3; i++) await this.#put(timeline, timeline.lastRecordLsn + 16, "record");
      await this.#retried(() => timeline.freezeAndFlush());
      if (round % 2 === 1) await this.#retried(() => maintenance.compact({ forceL0: true, forceImages: round === 3 }));
      if (round === 2) await timeline.waitUploaded();
      if (round === 3) await this.#retried(() => maintenance.collectGarbage());
      this.#promisedLsn = Math.max(this.#promisedLsn, timeline.remoteConsistentLsn);
    }
    await timeline.waitUploaded();
    this.#promisedLsn = Math.max(this.#promisedLsn, timeline.remoteConsistentLsn);
  }

  async #put(timeline: Timeline, lsn: Lsn, kind: "image" | "record"): Promise<void> {
    const values: KeyValue[] = Array.from({ length: KEYS }, (_, index) => ({
      key: keyOf(index), lsn,
      value: kind === "image" ? { kind: "image", bytes: new Uint8Array(8192).fill(index) } : { kind: "neon", record: { type: "clog-set-committed", xids: [index * 32768 + (lsn % 32768)], timestamp: BigInt(lsn) } },
    }));
    for (const value of values) this.#naive.put(value);
    // As ingest that was answered by an error: the record comes again.
    await this.#retried(() => timeline.put(values));
    timeline.advance(lsn, timeline.lastRecordLsn);
  }

  /** An error is answered, and the same asked for again: the disk fails once. */
  async #retried<T>(action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (error) {
      if (this.#cut || !isStrataError(error)) throw error;
      return await action();
    }
  }

  #assertWhole(manager: TimelineManager): void {
    for (const [id, error] of manager.brokenTimelines) throw new InvariantError(`timeline ${id} is broken: ${describeError(error)}`);
    if (this.#promisedLsn === 0) return;
    const { lastRecordLsn } = manager.get(TIMELINE);
    if (lastRecordLsn < this.#promisedLsn) throw new InvariantError(`came back at ${lastRecordLsn}, but ${this.#promisedLsn} was remote-consistent`);
  }

  /** What was not durable comes again, as from safekeepers. */
  async #catchUp(timeline: Timeline): Promise<void> {
    const rest = Map.groupBy(this.#naive.after(timeline.lastRecordLsn), (value) => value.lsn);
    for (const [lsn, values] of rest) {
      await this.#retried(() => timeline.put(values));
      timeline.advance(lsn, timeline.lastRecordLsn);
    }
  }

  /** Another loss of power, and a start on a healthy disk. */
  async #afterwards(fixture: StorageFixture): Promise<void> {
    this.#machine.faults = {};
    if (!this.#cut) this.#machine.crash();
    this.#machine.boot();
    await fixture.reboot();
    const manager = await fixture.attach(++this.#generation);
    await manager.loadTimelines();
    this.#assertWhole(manager);
    // A root without an index never was; its creator begins again.
    const timeline = manager.timelineIds.includes(TIMELINE) ? manager.get(TIMELINE) : await manager.createTimeline({ timelineId: TIMELINE, initdbLsn: START_LSN, pgVersion: 17 });
    await this.#catchUp(timeline);
    if (timeline.lastRecordLsn > 0) await this.#compare(timeline);
    await manager.shutdown({ flush: true });
  }

  async #compare(timeline: Timeline): Promise<void> {
    const keys = Array.from({ length: KEYS }, (_, i) => keyOf(i));
    for (let lsn = Math.max(START_LSN, timeline.gcCutoffLsn); lsn <= timeline.lastRecordLsn; lsn += 48) {
      const pages = await timeline.getVectored(keys, lsn, CONTEXT);
      for (let i = 0; i < KEYS; i++) {
        const [page, expected] = [pages[i], this.#naive.get(keys[i], lsn)];
        if (page instanceof Error) throw page;
        if (expected === null || Buffer.compare(page, expected) !== 0) throw new InvariantError(`block ${i} at ${lsn} differs`);
      }
    }
  }
}
