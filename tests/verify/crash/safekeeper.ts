/**
 * A safekeeper's timeline and its disk: the same small life, once for each of its disk operations and each way in which that
 * operation can go wrong. Afterwards the disk is healthy again, and everything acknowledged must be there.
 */
import { Cancelled, InvariantError, isStrataError } from "../../../src/kit/errors.ts";
import type { DiskOperation, DiskOperationKind } from "../../../src/platform/virtual/virtual-disk.ts";
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import { type VirtualMachine, VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import type { Timeline } from "../../../src/safekeeper/timeline/timeline.ts";
import { check, ID, openTimelines, Proposer } from "../../safekeeper/support/crash-model.ts";
import { MIB } from "../../safekeeper/support/sample-wal.ts";

/**
 * kill: the process ends before the operation, the page cache stays. power: the same, and what was not synced is gone but for some
 * sectors and names. torn: the write happens, then the power goes, so that some of its sectors are there.
 */
export const FAULTS = ["kill", "power", "torn", "io-error", "disk-full"] as const;
export type Fault = (typeof FAULTS)[number];

export interface Point {
  readonly seed: number;
  /** Which of the operations that change the disk, from 0. */
  readonly operation: number;
  readonly fault: Fault;
}

const CHANGES: readonly DiskOperationKind[] = ["open", "write", "truncate", "sync", "sync-directory", "rename", "remove", "make-directory"];
const NEEDS_ROOM: readonly DiskOperationKind[] = ["open", "write", "truncate", "rename", "make-directory"];
export const NEW_TIMELINE = { ...ID, pgVersion: 170_002, systemId: 7n, walSegmentSizeBytes: MIB, startLsn: 0, commitLsn: 0, createdMs: 0 };
const APPENDS = 4;
/** The second begins with an orderly restart. */
const LIVES = 2;
const MAX_MS = 3_600_000;

/** Whether a fault can happen to an operation. */
export function applies(fault: Fault, kind: DiskOperationKind): boolean {
  if (fault === "torn") return kind === "write";
  return fault !== "disk-full" || NEEDS_ROOM.includes(kind);
}

/** The operations of an undisturbed run, in order. */
export function operationsOf(seed: number): DiskOperationKind[] {
  const kinds: DiskOperationKind[] = [];
  new Run(seed, (operation) => {
    kinds.push(operation.kind);
    return undefined;
  }).run();
  return kinds;
}

/** Returns how many bytes had been acknowledged. @throws Error when some of them are gone, or the timeline does not open again */
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

type OnChange = (operation: DiskOperation) => "io-error" | "disk-full" | undefined;

class Run {
  readonly #world: VirtualWorld;
  readonly #machine: VirtualMachine;
  readonly #random: SeededRandom;
  readonly #proposer = new Proposer();
  readonly #onChange: OnChange;
  /** The timeline was made, and we were told so. */
  #created = false;
  #cut = false;
  readonly #ended = Promise.withResolvers<void>();

  constructor(seed: number, onChange: OnChange) {
    this.#world = new VirtualWorld({ seed });
    this.#random = this.#world.random.fork("test");
    this.#machine = this.#world.machine("sk");
    this.#onChange = onChange;
  }

  /** Ends the process in the middle of an operation. */
  cut(how: Fault): never {
    this.#cut = true;
    // Once: what little of the dead process still runs must not cut again.
    this.#machine.faults = {};
    if (how === "kill") this.#machine.kill();
    else this.#machine.crash();
    this.#ended.resolve();
    throw new Cancelled("the process ended here");
  }

  run(): number {
    return this.#world.clock.run(async () => {
      const { files } = this.#machine.platform;
      await files.makeDirectory("/data");
      await files.syncDirectory("/");
      this.#machine.faults = { fail: (operation) => (CHANGES.includes(operation.kind) ? this.#onChange(operation) : undefined) };
      // What a dead process waits for never comes: its end is told apart.
      await Promise.race([this.#ended.promise, this.#lives().catch((error: unknown) => {
        if (!this.#cut) throw error;
      })]);
      await this.#afterwards();
      return Math.max(0, this.#proposer.ackedLsn);
    }, { maxMs: MAX_MS });
  }

  async #lives(): Promise<void> {
    for (let life = 0; life < LIVES; life++) {
      const timelines = openTimelines(this.#machine);
      const timeline = await this.#tolerant(async () => {
        await timelines.load();
        return timelines.create(NEW_TIMELINE, { revive: true });
      });
      this.#created ||= timeline !== null;
      if (timeline !== null) await this.#work(timeline);
      await this.#tolerant(() => timelines.close());
    }
  }

  async #work(timeline: Timeline): Promise<void> {
    for (let step = 0, elected = false; step <= APPENDS && timeline.store.failure === null; step++) {
      const done = await this.#tolerant(async () => {
        if (!elected) await this.#proposer.elect(timeline);
        elected = true;
        await this.#proposer.append(timeline, this.#random);
        if (step === APPENDS / 2) await timeline.save();
        return true;
      });
      // As a proposer that was answered by an error: it connects again.
      if (done === null) elected = false;
    }
  }

  /** Null for an error that a safekeeper may answer with. */
  async #tolerant<T>(action: () => Promise<T>): Promise<T | null> {
    try {
      return await action();
    } catch (error) {
      if (this.#cut || !isStrataError(error)) throw error;
      return null;
    }
  }

  /** Another loss of power, and a start on a healthy disk. */
  async #afterwards(): Promise<void> {
    this.#machine.faults = {};
    if (!this.#cut) this.#machine.crash();
    this.#machine.boot();
    const timelines = openTimelines(this.#machine);
    await timelines.load();
    const timeline = timelines.find(ID);
    if (timeline === null) {
      if (this.#created) throw new InvariantError("the timeline is gone, or cannot be opened");
      return;
    }
    await check(timeline, this.#proposer);
    await this.#proposer.elect(timeline);
    await this.#proposer.append(timeline, this.#random);
    await check(timeline, this.#proposer);
  }
}
