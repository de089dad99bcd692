/**
 * One epoch: a server works, a trunk timeline takes its log and is branched, flushed, compacted, collected, evicted and
 * restarted meanwhile, and pages are read at random LSNs of all branches. Then other servers begin on branches: one from a copy of the
 * first one's directory, where it was shut down; two from nothing but a branch's own pages, at random LSNs of random branches. Each
 * writes its own history. At each shutdown the pages at rest are compared with the server's directory.
 */
import { Cancelled } from "../../../src/kit/errors.ts";
import { type Lsn, lsnToString } from "../../../src/kit/lsn.ts";
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
import { Coverage } from "./coverage.ts";
import { Disturbance } from "./disturbance.ts";
import { randomConf, serverFromBranch } from "./servers.ts";
import { HistoryStore } from "./store.ts";
import { Truth } from "./truth.ts";
import { WalSource } from "./wal-source.ts";

/** The servers work in bursts, each when the timelines have taken the log of the one before. */
const BURST_MS = 500;
/** Of each step: reading pages. */
const COMPARE_MS = 60;
/** When each phase ends, as a part of the epoch. */
const PHASES = { trunk: 0.25, copies: 0.55, backups: 0.85 } as const;
const SERVERS_AT_ONCE = 3;

export interface EpochOptions {
  readonly major: StockMajor;
  readonly seed: number;
  readonly durationMs: number;
  readonly log: (line: string) => void;
  /** Ends the epoch at the next step. */
  readonly signal?: AbortSignal;
}

export interface EpochResult extends Tally {
  images: number;
  restPages: number;
  readonly events: Map<string, number>;
}

/** Of an epoch that was ended early, what it had until then. @throws Error when the storage breaks a promise */
export async function runEpoch(options: EpochOptions): Promise<EpochResult> {
  const epoch = new Epoch(options);
  try {
    await epoch.run();
  } catch (error) {
    if (!(error instanceof Cancelled) || options.signal?.aborted !== true) throw error;
  } finally {
    await epoch.close();
  }
  return epoch.result;
}

class Epoch {
  readonly result: EpochResult = { coverage: new Coverage(), differences: [], records: 0, images: 0, restPages: 0, events: new Map() };
  readonly #options: EpochOptions;
  readonly #random: SeededRandom;
  readonly #servers: StockPostgres[] = [];
  readonly #branches: Branch[] = [];
  #store: HistoryStore | null = null;
  #disturbance: Disturbance | null = null;
  /** Mostly records are taken as production has them: short, so that many pages can be read. */
  readonly #thin: boolean;
  #nextId = 1;
  /** Each burst of SQL has a seed of its own. */
  #bursts = 0;

  constructor(options: EpochOptions) {
    this.#options = options;
    this.#random = new SeededRandom(options.seed);
    this.#thin = this.#random.below(4) !== 0;
  }

  get #history(): HistoryStore {
    if (this.#store === null) throw new Error("no store yet");
    return this.#store;
  }

  async run(): Promise<void> {
    const { durationMs } = this.#options;
    const startMs = performance.now();
    const until = (part: number): number => startMs + durationMs * part;
    const trunk = await this.#begin();
    await this.#work([trunk], until(PHASES.trunk));
    const copy = await this.#forkFromCopy(trunk);
    await this.#work([trunk, copy, await this.#forkFromPages()], until(PHASES.copies));
    // On any branch, so that branches of branches come about; a third server would only make all slower.
    await this.#work([copy, await this.#forkFromPages()], until(PHASES.backups));
    while (performance.now() < until(1)) await this.#step();
    this.result.images = new Set(this.#branches.map(({ truth }) => truth)).values().reduce((sum, truth) => sum + truth.images, 0);
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
    const server = await StockPostgres.create({ major, conf: randomConf(this.#random) });
    this.#servers.push(server);
    const store = await HistoryStore.create(major);
    this.#store = store;
    this.#disturbance = new Disturbance({
      store, random: this.#random, branches: this.#branches, events: this.result.events,
      branchOff: async (parent, lsn) => void (await this.#branchOff(parent, { lsn, source: parent.source, truth: parent.truth, leads: false })),
    });
    const files = new RealFiles();
    const { endLsn } = await inspectDatadir(files, server.dataDirectory);
    const id = this.#newId();
    const timeline = await store.manager.createTimeline({ timelineId: id, initdbLsn: endLsn, pgVersion: major });
    await importDatadir(new DatadirModification(new TimelineDatadir(timeline, { version: major, shard: UNSHARDED_IDENTITY })), files, server.dataDirectory);
    await timeline.freezeAndFlush();
    await timeline.waitUploaded();
    return await this.#adopt({ id, source: new WalSource(server, endLsn), truth: new Truth(), leads: true });
  }

  async #adopt(what: { id: TimelineId; source: WalSource; truth: Truth; leads: boolean }): Promise<Branch> {
    const branch = new Branch({ ...what, tally: this.result, thin: this.#thin });
    await branch.open(this.#history.manager);
    this.#branches.push(branch);
    return branch;
  }

  async #branchOff(parent: Branch, what: { lsn: Lsn; source: WalSource; truth: Truth; leads: boolean }): Promise<Branch> {
    const id = this.#newId();
    await this.#history.manager.createBranch({ timelineId: id, ancestorTimelineId: parent.id, lsn: what.lsn });
    return await this.#adopt({ id, ...what });
  }

  // ---- Servers

  /** A second server goes on from where the trunk's stopped, on a branch of its own. */
  async #forkFromCopy(trunk: Branch): Promise<Branch> {
    const lsn = trunk.timeline.lastRecordLsn;
    const server = trunk.source.server.copy();
    this.#servers.push(server);
    return await this.#branchOff(trunk, { lsn, source: new WalSource(server, lsn), truth: new Truth({ truth: trunk.truth, lsn }), leads: true });
  }

  /** A server begins at a random LSN of a random branch, with nothing but that branch's pages. */
  async #forkFromPages(): Promise<Branch> {
    const { major } = this.#options;
    const parent = this.#branches[this.#random.below(this.#branches.length)];
    const { low, high } = parent.range;
    const ends = parent.truth.recordEnds.filter((end) => end >= low && end <= high);
    const lsn = this.#random.below(4) === 0 || ends.length === 0 ? high : ends[this.#random.below(ends.length)];
    const id = this.#newId();
    const timeline = await this.#history.manager.createBranch({ timelineId: id, ancestorTimelineId: parent.id, lsn });
    const server = await serverFromBranch(timeline, { major, conf: randomConf(this.#random) });
    this.#servers.push(server);
    this.#options.log(`a server begins at ${lsnToString(lsn)} of timeline ${parent.id.slice(-4)}`);
    return await this.#adopt({ id, source: new WalSource(server, lsn), truth: new Truth({ truth: parent.truth, lsn }), leads: true });
  }

  /** Random SQL on the branches' servers in bursts, and steps beside it; then the servers are shut down and compared at rest. */
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
    for (const branch of branches) await this.#compareAtRest(branch);
  }

  async #burst(sources: readonly WalSource[]): Promise<void> {
    const untilMs = performance.now() + BURST_MS;
    let working = true;
    const rounds = sources.slice(0, SERVERS_AT_ONCE).map(({ server }) => runSoakRound({ socket: server.directory, major: server.major, seed: this.#options.seed * 7919 + this.#bursts++, untilMs }));
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
    for (const difference of differences) this.result.differences.push(`timeline ${branch.id.slice(-4)} at rest at ${lsnToString(lastRecordLsn)}: ${difference}`);
    const events = [...this.result.events].map(([name, count]) => `${count} ${name}`).join(", ");
    this.#options.log(`${this.result.records} records taken, ${this.result.coverage.compared} compared, ${pages} pages at rest; ${events}`);
  }

  // ---- One step: WAL is taken, something random happens to the timelines, pages are compared

  async #step(): Promise<void> {
    this.#options.signal?.throwIfAborted();
    const random = this.#random;
    for (const branch of this.#branches.filter(({ leads }) => leads)) await branch.feed(1 + random.below(8));
    const one = this.#branches[random.below(this.#branches.length)];
    if (random.below(2) === 0) await one.feed(1 + random.below(8));
    const untilMs = performance.now() + COMPARE_MS;
    do await this.#branches[random.below(this.#branches.length)].compare(random);
    while (performance.now() < untilMs);
    await this.#disturbance?.once(this.#branches[random.below(this.#branches.length)]);
    // Background compaction and uploads have their turn.
    await Bun.sleep(0);
  }
}
