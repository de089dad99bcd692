/** What happens to timelines while they are written and read: everything a pageserver does with them, at random moments. */
import type { Lsn } from "../../../src/kit/lsn.ts";
import type { Random } from "../../../src/platform/random.ts";
import type { Branch } from "./branch.ts";
import type { HistoryStore } from "./store.ts";

const MAX_BRANCHES = 10;
/** Between reads beside other work, which would never end otherwise. */
const BESIDE_PAUSE_MS = 3;

export interface DisturbanceOptions {
  readonly store: HistoryStore;
  readonly random: Random;
  /** All there are; deleted ones are taken out. */
  readonly branches: Branch[];
  /** How often each kind of event happened. */
  readonly events: Map<string, number>;
  readonly branchOff: (parent: Branch, lsn: Lsn) => Promise<void>;
}

export class Disturbance {
  readonly #options: DisturbanceOptions;

  constructor(options: DisturbanceOptions) {
    this.#options = options;
  }

  /** Something happens to `branch`, or to all; or nothing. */
  async once(branch: Branch): Promise<void> {
    const { store, random } = this.#options;
    const maintenance = store.manager.maintenanceOf(branch.id);
    const roll = random.below(1000);
    if (roll < 90) await this.#beside("flushes", branch.timeline.freezeAndFlush());
    else if (roll < 170) await this.#beside("compactions", maintenance.compact({ forceL0: random.below(2) === 0, forceImages: random.below(2) === 0 }));
    else if (roll < 250) await this.#collect(branch);
    else if (roll < 310) await this.#evict(branch);
    else if (roll < 380) await this.#branch(branch);
    else if (roll < 410) await this.#deleteLeaf(branch);
    else if (roll < 460) await this.#restart();
    else if (roll < 500) store.reconfigure(random);
  }

  #happened(event: string, times = 1): void {
    const { events } = this.#options;
    events.set(event, (events.get(event) ?? 0) + times);
  }

  /** Reads go on while `work` is done. */
  async #beside<T>(event: string, work: Promise<T>): Promise<T> {
    const { branches, random } = this.#options;
    let done = false;
    const ended = work.finally(() => {
      done = true;
    });
    ended.catch(() => {});
    while (!done) {
      await branches[random.below(branches.length)].compare(random);
      await Bun.sleep(BESIDE_PAUSE_MS);
    }
    this.#happened(event);
    return await ended;
  }

  async #collect(branch: Branch): Promise<void> {
    const { store, random } = this.#options;
    const maintenance = store.manager.maintenanceOf(branch.id);
    // Only what images cover may go.
    if (random.below(2) === 0) await this.#beside("compactions", maintenance.compact({ forceL0: true, forceImages: true }));
    const collected = await this.#beside("collections", maintenance.collectGarbage());
    branch.removedLayers += collected?.removed ?? 0;
    this.#happened("layers collected", collected?.removed ?? 0);
    // The objects go as well, so that a lost disk shows what was still needed.
    if (random.below(2) === 0) await store.deletionQueue.flush();
  }

  async #evict(branch: Branch): Promise<void> {
    let evicted = 0;
    for (const layer of [...branch.timeline.stack.map.layers()]) if (this.#options.random.below(2) === 0 && (await layer.evict())) evicted++;
    this.#happened("layers evicted", evicted);
  }

  /** A branch at a record of the past; it takes its parent's log from there on, or stays where it is. */
  async #branch(parent: Branch): Promise<void> {
    const { branches, random, branchOff } = this.#options;
    if (branches.length >= MAX_BRANCHES) return await this.#deleteLeaf(branches[random.below(branches.length)]);
    const { low, high } = parent.range;
    const ends = parent.truth.recordEnds;
    const lsn = ends[random.below(ends.length)] ?? 0;
    if (lsn < low || lsn > high) return;
    await branchOff(parent, lsn);
    this.#happened("branches");
  }

  async #deleteLeaf(branch: Branch): Promise<void> {
    const { store, branches } = this.#options;
    if (branch.leads || branch.timeline.branchPoints.size > 0) return;
    await store.manager.deleteTimeline(branch.id);
    branches.splice(branches.indexOf(branch), 1);
    this.#happened("branches deleted");
  }

  async #restart(): Promise<void> {
    const { store, branches, random } = this.#options;
    const newMachine = random.below(2) === 0;
    await store.restart({ flush: random.below(2) === 0, newMachine });
    for (const branch of branches) {
      // Ancestors stand before their branches: a branch can be read when its ancestor has come to the branch point again.
      await branch.open(store.manager);
      await branch.catchUpWithBranches();
      branch.restarts++;
      if (newMachine) branch.diskLosses++;
    }
    this.#happened(newMachine ? "restarts without the disk" : "restarts");
  }
}
