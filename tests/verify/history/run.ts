/**
 * One epoch: a server works, a trunk timeline takes its log and is branched, flushed, compacted, collected, evicted and
 * restarted meanwhile, and pages are read at random LSNs of all branches. Half-way the server is shut down and its directory
 * copied: from there two servers write two histories, on the trunk and on a branch. At each shutdown the pages at rest are
 * compared with the directory.
 */
import { lsnToString } from "../../../src/kit/lsn.ts";
import type { TimelineId } from "../../../src/kit/ids.ts";
import { UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import { DatadirModification } from "../../../src/pageserver/datadir/datadir-modification.ts";
import { TimelineDatadir } from "../../../src/pageserver/datadir/timeline-datadir.ts";
import { importDatadir, inspectDatadir } from "../../../src/pageserver/import/import-datadir.ts";
import { RealFiles } from "../../../src/platform/real/files.ts";
import { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import { compareDatadir } from "../../support/compare-datadir.ts";
import { type StockMajor, StockPostgres } from "../../support/stock-postgres.ts";
import { runSoakRound } from "../redo/soak.ts";
import { Branch, type Tally } from "./branch.ts";
import { HistoryStore } from "./store.ts";
import { Truth } from "./truth.ts";
import { WalSource } from "./wal-source.ts";

const CONF = [
  "wal_consistency_checking = 'all'", "wal_level = logical", "shared_buffers = 4MB", "autovacuum = off", "max_wal_size = 8GB", "wal_keep_size = 64GB", "checkpoint_timeout = 1h",
  "synchronous_commit = off", "bgwriter_delay = 10s", "wal_writer_delay = 10ms", "max_connections = 30", "max_parallel_workers_per_gather = 0", "max_parallel_maintenance_workers = 0",
  "max_prepared_transactions = 4", "log_min_messages = error",
];
const MAX_BRANCHES = 7;
/** The servers work in bursts, each when the timelines have taken the log of the one before. */
const BURST_MS = 500;
/** Between reads beside a compaction, which would never end otherwise. */
const BESIDE_PAUSE_MS = 30;

export interface EpochOptions {
  readonly major: StockMajor;
  readonly seed: number;
  readonly durationMs: number;
  readonly log: (line: string) => void;
}

export interface EpochResult extends Tally {
  images: number;
  restPages: number;
  branches: number;
  restarts: number;
  removedLayers: number;
}

export async function runEpoch(options: EpochOptions): Promise<EpochResult> {
  const epoch = new Epoch(options);
  try {
    await epoch.run();
  } finally {
    await epoch.close();
  }
  return epoch.result;
}

class Epoch {
  readonly result: EpochResult = { compared: 0, differences: [], records: 0, images: 0, restPages: 0, branches: 0, restarts: 0, removedLayers: 0 };
  readonly #options: EpochOptions;
  readonly #random: SeededRandom;
  readonly #servers: StockPostgres[] = [];
  readonly #branches: Branch[] = [];
  #store: HistoryStore | null = null;
  #nextId = 1;
  /** Each burst of SQL has a seed of its own. */
  #bursts = 0;

  constructor(options: EpochOptions) {
    this.#options = options;
    this.#random = new SeededRandom(options.seed);
  }

  get #history(): HistoryStore {
    if (this.#store === null) throw new Error("no store yet");
    return this.#store;
  }

  async run(): Promise<void> {
    const { durationMs } = this.#options;
    const startMs = performance.now();
    const trunk = await this.#begin();
    await this.#work([trunk], startMs + durationMs * 0.35);
    await this.#compareAtRest(trunk);
    const fork = await this.#fork(trunk);
    await this.#work([trunk, fork], startMs + durationMs * 0.75);
    await this.#compareAtRest(trunk);
    await this.#compareAtRest(fork);
    while (performance.now() - startMs < durationMs) await this.#step();
    this.result.images = trunk.truth.images + fork.truth.images;
  }

  async close(): Promise<void> {
    await this.#store?.remove();
    for (const server of this.#servers) await server.remove();
  }

  #newId(): TimelineId {
    return (this.#nextId++).toString(16).padStart(32, "0");
  }

  /** The server as initdb left it becomes the trunk's first content. */
  async #begin(): Promise<Branch> {
    const { major } = this.#options;
    const conf = [...CONF, `full_page_writes = ${this.#random.below(2) === 0 ? "on" : "off"}`, `wal_log_hints = ${this.#random.below(2) === 0 ? "on" : "off"}`];
    const server = await StockPostgres.create({ major, conf });
    this.#servers.push(server);
    this.#store = await HistoryStore.create(major);
    const files = new RealFiles();
    const { endLsn } = await inspectDatadir(files, server.dataDirectory);
    const id = this.#newId();
    const timeline = await this.#history.manager.createTimeline({ timelineId: id, initdbLsn: endLsn, pgVersion: major });
    await importDatadir(new DatadirModification(new TimelineDatadir(timeline, { version: major, shard: UNSHARDED_IDENTITY })), files, server.dataDirectory);
    await timeline.freezeAndFlush();
    await timeline.waitUploaded();
    return await this.#adopt(new Branch({ id, source: new WalSource(server, endLsn), truth: new Truth(), leads: true, tally: this.result }));
  }

  async #adopt(branch: Branch): Promise<Branch> {
    await branch.open(this.#history.manager);
    this.#branches.push(branch);
    return branch;
  }

  /** Random SQL on the branches' servers in bursts, and steps beside it; then the servers are shut down. */
  async #work(branches: readonly Branch[], untilMs: number): Promise<void> {
    for (const { source } of branches) await source.server.start();
    do {
      await this.#burst(branches.map(({ source }) => source));
      for (const branch of branches) while (await branch.feed(16)) await this.#step();
    } while (performance.now() < untilMs);
    for (const { source } of branches) {
      await source.server.stop();
      await source.finish();
    }
    for (const branch of branches) while (await branch.feed(16)) await this.#step();
  }

  async #burst(sources: readonly WalSource[]): Promise<void> {
    const untilMs = performance.now() + BURST_MS;
    let working = true;
    const rounds = sources.map(({ server }) => runSoakRound({ socket: server.directory, major: server.major, seed: this.#options.seed * 7919 + this.#bursts++, untilMs }));
    const all = Promise.all(rounds).finally(() => {
      working = false;
    });
    all.catch(() => {});
    while (working) {
      for (const source of sources) await source.refresh();
      await this.#step();
    }
    await all;
    for (const source of sources) await source.refresh();
  }

  /** Every page as the directory of the server, which is down, has it. */
  async #compareAtRest(branch: Branch): Promise<void> {
    const { lastRecordLsn } = branch.timeline;
    const { pages, slruPages, differences } = await compareDatadir(branch.datadir.at(lastRecordLsn, { task: "history" }), branch.source.server.dataDirectory);
    this.result.restPages += pages + slruPages;
    for (const difference of differences) this.result.differences.push(`at rest at ${lsnToString(lastRecordLsn)}: ${difference}`);
    this.#options.log(`${branch.truth.images} images, ${this.result.records} records taken, ${this.result.compared} compared, ${pages} pages at rest, ${this.result.branches} branches, ${this.result.restarts} restarts, ${this.result.removedLayers} layers collected`);
  }

  /** A second server goes on from where the trunk's stopped, on a branch of its own. */
  async #fork(trunk: Branch): Promise<Branch> {
    const lsn = trunk.timeline.lastRecordLsn;
    const server = trunk.source.server.copy();
    this.#servers.push(server);
    const id = this.#newId();
    await this.#history.manager.createBranch({ timelineId: id, ancestorTimelineId: trunk.id, lsn });
    return await this.#adopt(new Branch({ id, source: new WalSource(server, lsn), truth: new Truth({ truth: trunk.truth, lsn }), leads: true, tally: this.result }));
  }

  // ---- One step: something random happens to the timelines, WAL is taken, pages are compared

  async #step(): Promise<void> {
    const random = this.#random;
    const leaders = this.#branches.filter((branch) => branch.leads);
    for (const branch of leaders) await branch.feed(1 + random.below(8));
    const branch = this.#branches[random.below(this.#branches.length)];
    if (random.below(3) === 0) await branch.feed(1 + random.below(4));
    for (let i = 0; i < 3; i++) await this.#branches[random.below(this.#branches.length)].compare(random);
    await this.#disturb(branch);
    // Background compaction and uploads have their turn.
    await Bun.sleep(0);
  }

  async #disturb(branch: Branch): Promise<void> {
    const random = this.#random;
    const roll = random.below(1000);
    const maintenance = this.#history.manager.maintenanceOf(branch.id);
    if (roll < 80) await branch.timeline.freezeAndFlush();
    else if (roll < 140) await this.#beside(maintenance.compact({ forceL0: random.below(2) === 0, forceImages: random.below(2) === 0 }));
    else if (roll < 200) this.result.removedLayers += (await maintenance.collectGarbage())?.removed ?? 0;
    else if (roll < 260) await this.#evict(branch);
    else if (roll < 310) await this.#branch(branch);
    else if (roll < 325) await this.#deleteLeaf(branch);
    else if (roll < 355) await this.#restart();
  }

  /** Reads go on while `work` is done. */
  async #beside(work: Promise<unknown>): Promise<void> {
    let done = false;
    const ended = work.finally(() => {
      done = true;
    });
    ended.catch(() => {});
    while (!done) {
      await this.#branches[this.#random.below(this.#branches.length)].compare(this.#random);
      await Bun.sleep(BESIDE_PAUSE_MS);
    }
    await ended;
  }

  async #evict(branch: Branch): Promise<void> {
    for (const layer of branch.timeline.stack.map.layers()) if (this.#random.below(2) === 0) await layer.evict();
  }

  /** A branch at a record of the past; it takes its parent's log from there on, or stays where it is. */
  async #branch(parent: Branch): Promise<void> {
    if (this.#branches.length >= MAX_BRANCHES) return;
    const { gcCutoffLsn, lastRecordLsn, ancestor } = parent.timeline;
    const ends = parent.truth.recordEnds;
    const lsn = ends[this.#random.below(ends.length)] ?? 0;
    if (lsn < Math.max(gcCutoffLsn, ancestor?.lsn ?? 0) || lsn > lastRecordLsn) return;
    const id = this.#newId();
    await this.#history.manager.createBranch({ timelineId: id, ancestorTimelineId: parent.id, lsn });
    await this.#adopt(new Branch({ id, source: parent.source, truth: parent.truth, leads: false, tally: this.result }));
    this.result.branches++;
  }

  async #deleteLeaf(branch: Branch): Promise<void> {
    if (branch.leads || branch.timeline.branchPoints.size > 0) return;
    await this.#history.manager.deleteTimeline(branch.id);
    this.#branches.splice(this.#branches.indexOf(branch), 1);
  }

  async #restart(): Promise<void> {
    await this.#history.restart({ flush: this.#random.below(2) === 0, newMachine: this.#random.below(2) === 0 });
    for (const branch of this.#branches) await branch.open(this.#history.manager);
    this.result.restarts++;
  }
}
