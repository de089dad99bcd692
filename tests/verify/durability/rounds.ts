/**
 * Rounds of kills under load. In each some roles are killed at random and started again; every second one takes the unsynced
 * away from whatever was killed; all of them destroy the compute's directory, every third one safekeeper's, every fifth
 * the pageserver's. After each round every acknowledged row must be there.
 */
import { rmSync } from "node:fs";
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import type { TestCluster } from "../../support/dev-cluster.ts";
import type { RoleProcess } from "../../support/role-process.ts";
import type { Writers } from "./writers.ts";

export interface RoundsOptions {
  readonly cluster: TestCluster;
  readonly writers: Writers;
  readonly random: SeededRandom;
  readonly print: (line: string) => void;
}

export interface RoundsResult {
  readonly lostRows: number;
  /** Over all rounds: what the losses of power took, to show that they took something. */
  readonly lostSectors: number;
  readonly lostNameChanges: number;
}

const CONNECTIONS = 4;
const KILLS_MAX = 3;
/** Rows to be committed before the first kill of a round. */
const WARM_UP_ROWS = 40;
const SEGMENT_ROUNDS = 2;
const PROGRESS_TIMEOUT_MS = 60_000;
const PAUSE_MAX_MS = 400;
const CATCH_UP_TIMEOUT_MS = 60_000;

export class Rounds {
  readonly #options: RoundsOptions;
  lostRows = 0;
  lostSectors = 0;
  lostNameChanges = 0;
  #events: string[] = [];

  constructor(options: RoundsOptions) {
    this.#options = options;
  }

  /** @throws Error when the cluster does not get going again */
  async run(round: number): Promise<void> {
    const { writers, print, cluster } = this.#options;
    this.#events = [];
    const before = writers.acknowledged.size;
    const loses = round % 2 === 0;
    writers.start(CONNECTIONS);
    await this.#mustProgress(WARM_UP_ROWS);
    if (round % SEGMENT_ROUNDS === 0) await this.#moveOn();
    await this.#kills(loses);
    await this.#destruction(round, loses);
    await writers.stop();
    const missing = await writers.missing();
    this.lostRows += missing.length;
    await this.#caughtUp();
    const removed = cluster.safekeepers.map((role) => role.log().split("old WAL segments removed").length - 1).join("/");
    const rows = `${writers.acknowledged.size - before} rows acknowledged, ${missing.length} missing${missing.length === 0 ? "" : ` (${missing.slice(0, 10).join(", ")})`}`;
    print(`round ${round}${loses ? " (power)" : ""}: ${this.#events.join("; ")}; ${rows}; WAL removed ${removed} times`);
  }

  /** A new WAL segment, and everything in the bucket: the safekeepers may remove what is below. */
  async #moveOn(): Promise<void> {
    const { writers, cluster } = this.#options;
    await writers.query("select pg_switch_wal()");
    await cluster.pageserverCheckpoint();
    this.#events.push("checkpoint of the pageserver");
  }

  async #mustProgress(rows: number): Promise<void> {
    if (await this.#options.writers.progress(rows, PROGRESS_TIMEOUT_MS)) return;
    throw new Error(`commits do not go on: ${this.#events.join("; ")}`);
  }

  async #kills(loses: boolean): Promise<void> {
    const { random, cluster } = this.#options;
    const { safekeepers, pageserver, broker, controller, compute } = cluster;
    const candidates = [...safekeepers, ...safekeepers, pageserver, pageserver, compute, broker, controller];
    for (let kills = 1 + random.below(KILLS_MAX); kills > 0; kills--) {
      const victims = new Set(Array.from({ length: 1 + random.below(2) }, () => candidates[random.below(candidates.length)]));
      await Promise.all([...victims].map((victim) => this.#kill(victim, loses)));
      await Bun.sleep(random.below(PAUSE_MAX_MS));
      cluster.endOrphans();
      await this.#restart();
      await Bun.sleep(random.below(PAUSE_MAX_MS));
    }
  }

  async #kill(victim: RoleProcess, loses: boolean): Promise<void> {
    const { random, cluster } = this.#options;
    // A PostgreSQL whose compute or controller is gone may live on for a while.
    const alone = random.below(2) === 0;
    await cluster.kill(victim, { alone });
    this.#events.push(`killed ${victim.name}${alone ? "" : " with its children"}`);
    if (loses) this.#losePower(victim);
  }

  #losePower(victim?: RoleProcess): void {
    const { lostSectors, lostNameChanges } = this.#options.cluster.losePower(this.#options.random, victim);
    this.lostSectors += lostSectors;
    this.lostNameChanges += lostNameChanges;
    if (lostSectors + lostNameChanges > 0) this.#events.push(`lost ${lostSectors} sectors and ${lostNameChanges} names`);
  }

  /** Kills the compute or everything, and takes directories away. */
  async #destruction(round: number, loses: boolean): Promise<void> {
    const { random, cluster } = this.#options;
    const everything = random.below(2) === 0;
    const doomedSafekeeper = round % 3 === 0 ? random.below(cluster.safekeepers.length) : null;
    const doomedPageserver = round % 5 === 0;
    if (everything) {
      await cluster.killAll();
      this.#events.push("killed everything");
      if (loses) this.#losePower();
    } else await cluster.kill(cluster.compute);
    rmSync(cluster.computeDirectory, { recursive: true, force: true });
    if (doomedSafekeeper !== null) await this.#destroy(cluster.safekeepers[doomedSafekeeper], cluster.safekeeperDirectories[doomedSafekeeper]);
    if (doomedPageserver) await this.#destroy(cluster.pageserver, cluster.pageserverDirectory);
    // Both ways must do: the compute brings the empty one up, or an operator has it copy the timeline first.
    await this.#restart(doomedSafekeeper !== null && random.below(2) === 0 ? doomedSafekeeper : null);
  }

  async #destroy(role: RoleProcess, directory: string): Promise<void> {
    await this.#options.cluster.kill(role);
    rmSync(directory, { recursive: true, force: true });
    this.#events.push(`destroyed ${role.name}`);
  }

  /** Starts what is down. A storage role that ended by itself is a failure; a compute may, when it was fenced. @param pulling a safekeeper to be filled from the others */
  async #restart(pulling: number | null = null): Promise<void> {
    const { cluster } = this.#options;
    const ended = cluster.roles.filter((role) => role !== cluster.compute && role.endedByItself);
    if (ended.length > 0) throw new Error(ended.map((role) => `${role.name} ended by itself:\n${role.tail()}`).join("\n"));
    await cluster.startStorage();
    if (pulling !== null) {
      await cluster.pullTimeline(pulling);
      this.#events.push("pulled its timeline");
    }
    if (cluster.compute.endedByItself) this.#events.push("the compute ended by itself");
    if (!cluster.compute.running) await cluster.startCompute();
  }

  /** Until every safekeeper has all of the log: as an operator would wait before the next failure of a disk. */
  async #caughtUp(): Promise<void> {
    const { cluster } = this.#options;
    const deadlineMs = performance.now() + CATCH_UP_TIMEOUT_MS;
    for (;;) {
      const positions = await Promise.all(cluster.safekeepers.map((_, index) => cluster.safekeeperPositions(index)));
      const [first] = positions;
      if (first !== null && positions.every((position) => position?.flushLsn === first.flushLsn)) return;
      if (performance.now() > deadlineMs) throw new Error(`safekeepers do not catch up: ${JSON.stringify(positions)}\n${this.#events.join("; ")}\n${cluster.compute.tail()}`);
      await Bun.sleep(100);
    }
  }
}
