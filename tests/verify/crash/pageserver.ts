/**
 * A pageserver's timelines and their disk, with the bucket on the same one: the same small life (put, flush, compact, collect, upload,
 * evict, read, branch, delete, restart), once for each operation of its disk and each request to the bucket, and each way in which
 * that one can go wrong. Afterwards disk and bucket are healthy again: the timelines open, have all that they called
 * remote-consistent, and after the rest of the log came again every page is right at every LSN. A branch is there when its creation was
 * answered, and gone when its deletion was.
 */
import { Cancelled, describeError, InvariantError, isStrataError } from "../../../src/kit/errors.ts";
import type { KeyValue } from "../../../src/interpret/value.ts";
import { slruBlockKey } from "../../../src/keyspace/mapping.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import { LayerMemory } from "../../../src/pageserver/layers/layer-memory.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import type { DiskOperation, DiskOperationKind } from "../../../src/platform/virtual/virtual-disk.ts";
import { type VirtualMachine, VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import { NaiveTimeline } from "../../pageserver/timeline/naive-timeline.ts";
import { type StorageFixture, storageFixture } from "../../pageserver/timeline/storage-fixture.ts";
import { REMOTE_KINDS, type RemoteFault, type RemoteKind, WatchedStorage } from "./remote-faults.ts";

/** As of the disk, see safekeeper.ts; stays-full: from that operation on there is no room until the end of the process. */
export const FAULTS = ["kill", "power", "torn", "io-error", "disk-full", "stays-full", "refused", "answer-lost", "cut"] as const;
type Fault = (typeof FAULTS)[number];
type Kind = DiskOperationKind | RemoteKind;

interface Point {
  readonly seed: number;
  readonly operation: number;
  readonly fault: Fault;
}

const CHANGES: readonly DiskOperationKind[] = ["open", "write", "truncate", "sync", "sync-directory", "rename", "remove", "make-directory"];
const NEEDS_ROOM: readonly Kind[] = ["open", "write", "truncate", "rename", "make-directory"];
const TRUNK = "11111111111111111111111111111111";
const BRANCH = "22222222222222222222222222222222";
const START_LSN = 0x1000;
/** Images of all are more than the in-memory layers may hold, so that some go to their file. */
const KEYS = 36;
const LAYER_MEMORY_BYTES = 64 * 1024;
const LIVES = 2;
const ROUNDS = 4;
const MAX_MS = 3_600_000;
/** How long a process on a full disk is left to try. */
const PATIENCE_MS = 60_000;
const CONTEXT = { task: "crash" };

const keyOf = (index: number) => slruBlockKey("clog", Math.floor(index / 32), index % 32);
const ALL_KEYS = Array.from({ length: KEYS }, (_, index) => keyOf(index));

/** Whether a fault can happen to an operation. */
export function applies(fault: Fault, kind: Kind): boolean {
  const isRemote = REMOTE_KINDS.some((remote) => remote === kind);
  if (fault === "refused") return isRemote;
  if (fault === "cut") return kind === "download";
  if (fault === "answer-lost") return isRemote && kind !== "download";
  if (isRemote) return false;
  if (fault === "torn") return kind === "write";
  return (fault !== "disk-full" && fault !== "stays-full") || NEEDS_ROOM.includes(kind);
}

/** The operations of an undisturbed run, in order. */
export function operationsOf(seed: number): Kind[] {
  const kinds: Kind[] = [];
  new Run(seed, (kind) => {
    kinds.push(kind);
    return undefined;
  }).run();
  return kinds;
}

/** Returns the highest remote-consistent LSN that was told. @throws Error when something below it is gone, or a page is wrong */
export function runPoint(point: Point): number {
  const { fault } = point;
  let operations = 0;
  let torn = false;
  const run: Run = new Run(point.seed, (kind) => {
    const at = operations++;
    const now = at === point.operation;
    if (torn || (now && (fault === "kill" || fault === "power"))) run.cut(torn ? "power" : fault);
    torn = now && fault === "torn";
    if (fault === "stays-full" && at >= point.operation && NEEDS_ROOM.includes(kind)) {
      run.expectTrouble();
      return "disk-full";
    }
    return now && fault !== "torn" && fault !== "stays-full" && fault !== "kill" && fault !== "power" ? fault : undefined;
  });
  return run.run();
}

type Failure = "io-error" | "disk-full" | RemoteFault;
type OnOperation = (kind: Kind) => Failure | undefined;

class Run {
  readonly #world: VirtualWorld;
  readonly #machine: VirtualMachine;
  readonly #naive = new Map([[TRUNK, new NaiveTimeline(0)]]);
  readonly #onOperation: OnOperation;
  #generation = 0;
  readonly #promisedLsns = new Map<string, Lsn>();
  /** What was answered of the branch; null while a request about it is under way. */
  #branchExists: boolean | null = false;
  #cut = false;
  #troubled = false;
  #watching = true;
  readonly #ended = Promise.withResolvers<void>();

  constructor(seed: number, onOperation: OnOperation) {
    this.#world = new VirtualWorld({ seed });
    this.#machine = this.#world.machine("pageserver");
    this.#onOperation = onOperation;
  }

  /** Ends the process in the middle of an operation. */
  cut(how: Fault): never {
    this.#end(how);
    throw new Cancelled("the process ended here");
  }

  #end(how: Fault): void {
    this.#cut = true;
    this.#watching = false;
    this.#machine.faults = {};
    if (how === "kill") this.#machine.kill();
    else this.#machine.crash();
    this.#ended.resolve();
  }

  /** A fault that lasts: what the process asks for may fail again and again, and at last it is ended. */
  expectTrouble(): void {
    if (this.#troubled) return;
    this.#troubled = true;
    void this.#world.clock.sleep(PATIENCE_MS).then(() => {
      if (!this.#cut) this.#end("kill");
    });
  }

  run(): number {
    return this.#world.clock.run(async () => {
      const fixture = await storageFixture({ machine: this.#machine, cacheBytes: 256 * 1024 });
      fixture.liveKeys = () => ALL_KEYS;
      fixture.layerMemory = new LayerMemory(LAYER_MEMORY_BYTES);
      const fail = (operation: DiskOperation) => {
        const failure = CHANGES.includes(operation.kind) ? this.#onOperation(operation.kind) : undefined;
        return failure === "io-error" || failure === "disk-full" ? failure : undefined;
      };
      this.#machine.faults = { fail };
      const lives = this.#lives(fixture).catch((error: unknown) => {
        if (!this.#cut && !(this.#troubled && isStrataError(error))) throw error;
      });
      await Promise.race([this.#ended.promise, lives]);
      await this.#afterwards(fixture);
      return Math.max(0, ...this.#promisedLsns.values());
    }, { maxMs: MAX_MS, maxSteps: 1e9 });
  }

  #bucketOf(fixture: StorageFixture): WatchedStorage {
    return new WatchedStorage(fixture.bucket, (kind) => {
      const failure = this.#watching ? this.#onOperation(kind) : undefined;
      return failure === "io-error" || failure === "disk-full" ? undefined : failure;
    });
  }

  async #lives(fixture: StorageFixture): Promise<void> {
    const bucket = this.#bucketOf(fixture);
    for (let life = 0; life < LIVES; life++) {
      const manager = await this.#loaded(fixture, bucket);
      this.#assertWhole(manager);
      await this.#work(manager, life);
      await this.#retried(() => fixture.deletionQueue.flush());
      await manager.shutdown({ flush: life % 2 === 0 });
    }
  }

  /** A timeline whose local directory cannot be used is broken until the next start, which comes at once. */
  async #loaded(fixture: StorageFixture, bucket: WatchedStorage): Promise<TimelineManager> {
    for (let attempt = 0; ; attempt++) {
      const manager = await this.#retried(() => fixture.attach(++this.#generation, { bucket }));
      await this.#retried(() => manager.loadTimelines());
      const failed = [...manager.brokenTimelines.values()].some((error) => isStrataError(error) && error.kind === "unavailable");
      if (!failed || attempt > 0) return manager;
      await manager.shutdown({ flush: false });
    }
  }

  async #work(manager: TimelineManager, life: number): Promise<void> {
    const known = manager.timelineIds.includes(TRUNK);
    const trunk = known ? manager.get(TRUNK) : await this.#retried(() => manager.createTimeline({ timelineId: TRUNK, initdbLsn: START_LSN, pgVersion: 17 }));
    if (!known && life === 0) await this.#put(trunk, START_LSN, "image");
    else await this.#catchUp(trunk);
    const maintenance = manager.maintenanceOf(TRUNK);
    for (let round = 0; round < ROUNDS; round++) {
      for (let i = 0; i < 3; i++) await this.#put(trunk, trunk.lastRecordLsn + 16, "record");
      await this.#retried(() => trunk.freezeAndFlush());
      if (round === 0) await this.#branchOrDelete(manager, life);
      if (round % 2 === 1) await this.#retried(() => maintenance.compact({ forceL0: true, forceImages: round === 3 }));
      if (round === 2) await trunk.waitUploaded();
      if (round === 2) await this.#readBack(trunk);
      if (round === 3) await this.#retried(() => maintenance.collectGarbage());
      this.#note(trunk);
    }
    await trunk.waitUploaded();
    this.#note(trunk);
  }

  /** In the first life a branch is made and written to, in the second it goes. */
  async #branchOrDelete(manager: TimelineManager, life: number): Promise<void> {
    const lsn = START_LSN + 16;
    this.#branchExists = null;
    if (life === 0) {
      this.#naive.set(BRANCH, new NaiveTimeline(lsn, { timeline: this.#naiveOf(TRUNK), lsn }));
      const branch = await this.#retried(() => manager.createBranch({ timelineId: BRANCH, ancestorTimelineId: TRUNK, lsn }));
      this.#branchExists = true;
      await this.#put(branch, branch.lastRecordLsn + 16, "record");
      await this.#retried(() => branch.freezeAndFlush());
      await branch.waitUploaded();
      this.#note(branch);
    } else if (manager.timelineIds.includes(BRANCH)) {
      await this.#retried(() => manager.deleteTimeline(BRANCH));
      this.#branchExists = false;
    }
  }

  /** Without the local files, so that they are downloaded. */
  async #readBack(timeline: Timeline): Promise<void> {
    for (const layer of [...timeline.stack.map.layers()]) await this.#retried(() => layer.evict());
    await this.#retried(() => this.#compareAt(timeline, timeline.lastRecordLsn));
  }

  #naiveOf(id: string): NaiveTimeline {
    const naive = this.#naive.get(id);
    if (naive === undefined) throw new InvariantError(`timeline ${id} was never made`);
    return naive;
  }

  #note(timeline: Timeline): void {
    const { timelineId, remoteConsistentLsn } = timeline;
    this.#promisedLsns.set(timelineId, Math.max(this.#promisedLsns.get(timelineId) ?? 0, remoteConsistentLsn));
  }

  async #put(timeline: Timeline, lsn: Lsn, kind: "image" | "record"): Promise<void> {
    const values: KeyValue[] = ALL_KEYS.map((key, index) => ({
      key, lsn,
      value: kind === "image" ? { kind: "image", bytes: new Uint8Array(8192).fill(index) } : { kind: "neon", record: { type: "clog-set-committed", xids: [index * 32768 + (lsn % 32768)], timestamp: BigInt(lsn) } },
    }));
    for (const value of values) this.#naiveOf(timeline.timelineId).put(value);
    // As ingest that was answered by an error: the record comes again.
    await this.#retried(() => timeline.put(values));
    timeline.advance(lsn, timeline.lastRecordLsn);
  }

  /** An error is answered, and the same asked for again: disk and bucket fail once. */
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
    const found = manager.timelineIds.includes(BRANCH);
    if (this.#branchExists !== null && found !== this.#branchExists) throw new InvariantError(found ? "the deleted branch is back" : "the branch is gone");
    for (const [id, lsn] of this.#promisedLsns) {
      if (lsn === 0 || (id === BRANCH && !found)) continue;
      const { lastRecordLsn } = manager.get(id);
      if (lastRecordLsn < lsn) throw new InvariantError(`timeline ${id} came back at ${lastRecordLsn}, but ${lsn} was remote-consistent`);
    }
  }

  /** What was not durable comes again, as from safekeepers. */
  async #catchUp(timeline: Timeline): Promise<void> {
    const rest = Map.groupBy(this.#naiveOf(timeline.timelineId).after(timeline.lastRecordLsn), (value) => value.lsn);
    for (const [lsn, values] of rest) {
      await this.#retried(() => timeline.put(values));
      timeline.advance(lsn, timeline.lastRecordLsn);
    }
  }

  /** Another loss of power, and a start on a healthy disk. */
  async #afterwards(fixture: StorageFixture): Promise<void> {
    this.#watching = false;
    this.#machine.faults = {};
    if (!this.#cut) this.#machine.crash();
    this.#cut = true;
    this.#machine.boot();
    await fixture.reboot();
    const manager = await fixture.attach(++this.#generation);
    await manager.loadTimelines();
    this.#assertWhole(manager);
    // A root without an index never was; its creator begins again.
    if (!manager.timelineIds.includes(TRUNK)) await manager.createTimeline({ timelineId: TRUNK, initdbLsn: START_LSN, pgVersion: 17 });
    for (const id of [TRUNK, BRANCH]) {
      if (!manager.timelineIds.includes(id)) continue;
      const timeline = manager.get(id);
      await this.#catchUp(timeline);
      if (timeline.lastRecordLsn > 0) await this.#compare(timeline);
    }
    await manager.shutdown({ flush: true });
  }

  async #compare(timeline: Timeline): Promise<void> {
    const { gcCutoffLsn, ancestor, lastRecordLsn } = timeline;
    for (let lsn = Math.max(START_LSN, gcCutoffLsn, ancestor?.lsn ?? 0); lsn < lastRecordLsn; lsn += 48) await this.#compareAt(timeline, lsn, 5);
    await this.#compareAt(timeline, lastRecordLsn);
  }

  /** Every `stride`-th key. */
  async #compareAt(timeline: Timeline, lsn: Lsn, stride = 1): Promise<void> {
    const keys = ALL_KEYS.filter((_, index) => index % stride === 0);
    const naive = this.#naiveOf(timeline.timelineId);
    const pages = await timeline.getVectored(keys, lsn, CONTEXT);
    for (let i = 0; i < keys.length; i++) {
      const [page, expected] = [pages[i], naive.get(keys[i], lsn)];
      if (page instanceof Error) throw page;
      if (expected === null || Buffer.compare(page, expected) !== 0) throw new InvariantError(`block ${keys[i].field6} at ${lsn} differs`);
    }
  }
}
