/** A timeline under test: takes a server's WAL through the real ingest, and knows what its pages must be. */
import { interpretRecord } from "../../../src/interpret/interpret-record.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import { UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import type { TimelineId } from "../../../src/kit/ids.ts";
import { type Lsn, lsnToString } from "../../../src/kit/lsn.ts";
import { TimelineDatadir } from "../../../src/pageserver/datadir/timeline-datadir.ts";
import { WalIngest } from "../../../src/pageserver/ingest/wal-ingest.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import type { Random } from "../../../src/platform/random.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import type { Coverage } from "./coverage.ts";
import { describeQuestion, isRight, type Question, type Truth } from "./truth.ts";
import { withoutCheckImages } from "./thin-record.ts";
import type { WalSource } from "./wal-source.ts";

/** As the page service reads: by the page cache. The comparison of whole directories reads without it. */
const CONTEXT = { task: "history", cachePages: true };
const SEGMENT_SIZE = 16 * 1024 * 1024;
/** How many pages one read asks for. */
const BATCHES = [1, 8, 64, 256, 1024];

export interface Tally {
  readonly coverage: Coverage;
  readonly differences: string[];
  records: number;
}

export interface BranchOptions {
  readonly id: TimelineId;
  readonly source: WalSource;
  readonly truth: Truth;
  /** Whether its records tell `truth` what pages must be: one branch of each history. */
  readonly leads: boolean;
  readonly tally: Tally;
  /** Ingests records without the images that only serve the check. */
  readonly thin: boolean;
}

export class Branch {
  readonly id: TimelineId;
  readonly source: WalSource;
  readonly truth: Truth;
  readonly leads: boolean;
  readonly #tally: Tally;
  #timeline: Timeline | null = null;
  /** Nearest first. */
  #ancestors: Timeline[] = [];
  #datadir: TimelineDatadir | null = null;
  #ingest: WalIngest | null = null;
  #decoder: WalStreamDecoder | null = null;
  readonly #record = new WalRecord();
  readonly #thinRecord = new WalRecord();
  readonly #thin: boolean;
  restarts = 0;
  diskLosses = 0;
  removedLayers = 0;

  constructor(options: BranchOptions) {
    this.id = options.id;
    this.source = options.source;
    this.truth = options.truth;
    this.leads = options.leads;
    this.#tally = options.tally;
    this.#thin = options.thin;
  }

  get timeline(): Timeline {
    if (this.#timeline === null) throw new Error("not open");
    return this.#timeline;
  }

  get datadir(): TimelineDatadir {
    if (this.#datadir === null) throw new Error("not open");
    return this.#datadir;
  }

  /** Takes up the timeline where its last record ends, after a creation or a restart. */
  async open(manager: TimelineManager): Promise<void> {
    const timeline = manager.get(this.id);
    this.#timeline = timeline;
    this.#ancestors = [];
    for (let { ancestor } = timeline; ancestor !== null; ancestor = manager.get(ancestor.timelineId).ancestor) this.#ancestors.push(manager.get(ancestor.timelineId));
    this.#datadir = new TimelineDatadir(timeline, { version: this.source.server.major, shard: UNSHARDED_IDENTITY });
    this.#ingest = await WalIngest.start(this.#datadir);
    this.#decoder = new WalStreamDecoder(timeline.lastRecordLsn, this.source.server.major, SEGMENT_SIZE);
  }

  /** Takes up to `maxPieces` pieces of WAL; false when there is none left. */
  async feed(maxPieces: number): Promise<boolean> {
    const [ingest, decoder] = [this.#ingest, this.#decoder];
    if (ingest === null || decoder === null) throw new Error("not open");
    for (let piece = 0; piece < maxPieces; piece++) {
      const bytes = this.source.read(decoder.position);
      if (bytes.length === 0) break;
      decoder.feed(bytes);
      while (decoder.next(this.#record)) await this.#take(ingest);
    }
    await ingest.commit();
    return decoder.position < this.source.end;
  }

  /** After a restart what was not durable is missing, also below LSNs that branches start from. */
  async catchUpWithBranches(): Promise<void> {
    const highest = Math.max(0, ...this.timeline.branchPoints.values());
    while (this.timeline.lastRecordLsn < highest) if (!(await this.feed(4)) && this.timeline.lastRecordLsn < highest) throw new Error(`the log ends below a branch point of timeline ${this.id}`);
  }

  async #take(ingest: WalIngest): Promise<void> {
    const record = this.#record;
    if (this.leads) this.truth.observe(record, interpretRecord(record, UNSHARDED_IDENTITY).effect);
    this.#tally.records++;
    const isThin = this.#thin && withoutCheckImages(record, this.#thinRecord);
    const wait = ingest.ingestRecord(isThin ? this.#thinRecord : record);
    if (wait !== undefined) await wait;
  }

  /** What may be asked for. A follower can be ahead of the branch that knows what its pages must be. */
  get range(): { readonly low: Lsn; readonly high: Lsn } {
    const { gcCutoffLsn, ancestor, lastRecordLsn } = this.timeline;
    return { low: Math.max(gcCutoffLsn, ancestor?.lsn ?? 0), high: Math.min(lastRecordLsn, this.truth.toldLsn) };
  }

  /** Some pages at one LSN, or one page at the record that made it. */
  async compare(random: Random): Promise<void> {
    const { low, high } = this.range;
    if (high < low) return;
    const roll = random.below(8);
    const exact = roll === 0 ? this.truth.pickRecord(random, low, high) : null;
    if (exact !== null) this.#tally.coverage.met("exact");
    const lsn = roll < 3 ? high : roll === 3 ? low : low + random.below(high - low + 1);
    const questions = exact !== null ? [exact] : this.truth.draw(random, lsn, BATCHES[random.below(BATCHES.length)]);
    if (questions.length > 0) await this.#ask(questions, random.below(32) === 0);
  }

  async #ask(questions: readonly Question[], withSizes: boolean): Promise<void> {
    const { lsn } = questions[0];
    const { coverage } = this.#tally;
    const startMs = performance.now();
    // Mostly the storage alone: looking up sizes in the past costs several reads a relation.
    const pages = withSizes
      ? await this.datadir.at(lsn, CONTEXT).relPages(questions.map(({ page }) => ({ rel: page.rel, block: page.block })))
      : await this.timeline.getVectored(questions.map(({ page }) => relBlockKey(page.rel, page.block)), lsn, CONTEXT);
    let compared = 0;
    for (let i = 0; i < questions.length; i++) {
      const bytes = pages[i];
      // The cutoff moved over the read while it was under way.
      if (bytes instanceof Error && lsn < this.timeline.gcCutoffLsn) continue;
      compared++;
      this.#note(questions[i]);
      if (bytes instanceof Error || !isRight(questions[i], bytes)) this.#differ(questions[i], bytes);
    }
    coverage.compared += compared;
    coverage.compareMs += performance.now() - startMs;
    coverage.met(questions.length === 1 ? "alone" : "vectored", compared);
    if (this.#ancestors.length > 0) coverage.met("branch", compared);
    if (this.#ancestors.length > 1) coverage.met("deepBranch", compared);
    if (this.#ancestors.length > 0 && this.leads) coverage.met("ownServer", compared);
    if (this.removedLayers > 0) coverage.met("collected", compared);
    if (this.restarts > 0) coverage.met("restarted", compared);
    if (this.diskLosses > 0) coverage.met("diskLost", compared);
  }

  /** Where the page comes from: which timeline, and whether an image layer has all of it. */
  #note({ page, version, lsn }: Question): void {
    const { coverage } = this.#tally;
    const versionLsn = page.lsns[version];
    const key = relBlockKey(page.rel, page.block);
    let [timeline, end, level] = [this.timeline, lsn + 1, 0];
    for (;;) {
      const imageLsn = timeline.stack.map.newestImageLsn(key, end);
      if (imageLsn !== null && imageLsn >= versionLsn) return coverage.met("fromImage");
      const branchLsn = timeline.ancestor?.lsn ?? 0;
      if (versionLsn > branchLsn) return coverage.met("fromRecords");
      if (level === 0) coverage.met("inherited");
      timeline = this.#ancestors[level++];
      if (timeline.gcCutoffLsn > branchLsn && level === 1) coverage.met("collectedAncestor");
      end = Math.min(end, branchLsn + 1);
    }
  }

  #differ(question: Question, bytes: Uint8Array | Error): void {
    const { ancestor, lastRecordLsn, gcCutoffLsn } = this.timeline;
    const where = `timeline ${this.id.slice(-4)} (branched at ${ancestor === null ? "-" : lsnToString(ancestor.lsn)}, cutoff ${lsnToString(gcCutoffLsn)}, last ${lsnToString(lastRecordLsn)})`;
    this.#tally.differences.push(`${where}: ${describeQuestion(question)}: ${bytes instanceof Error ? bytes.message : "another page"}`);
  }
}
