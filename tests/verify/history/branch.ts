/** A timeline under test: takes a server's WAL through the real ingest, and knows what its pages must be. */
import { interpretRecord } from "../../../src/interpret/interpret-record.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import { UNSHARDED_IDENTITY } from "../../../src/keyspace/shard.ts";
import type { TimelineId } from "../../../src/kit/ids.ts";
import { type Lsn, lsnToString } from "../../../src/kit/lsn.ts";
import { TimelineDatadir } from "../../../src/pageserver/datadir/timeline-datadir.ts";
import { WalIngest } from "../../../src/pageserver/ingest/wal-ingest.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timeline/timeline-manager.ts";
import type { Random } from "../../../src/platform/random.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { describeQuestion, isRight, type Question, type Truth } from "./truth.ts";
import type { WalSource } from "./wal-source.ts";

const CONTEXT = { task: "history" };
const SEGMENT_SIZE = 16 * 1024 * 1024;
const BATCH_PAGES = 32;

export interface Tally {
  compared: number;
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
}

export class Branch {
  readonly id: TimelineId;
  readonly source: WalSource;
  readonly truth: Truth;
  readonly leads: boolean;
  readonly #tally: Tally;
  /** The truth knows records up to here; those that come again are not told twice. */
  #toldLsn: Lsn = 0;
  #timeline: Timeline | null = null;
  #datadir: TimelineDatadir | null = null;
  #ingest: WalIngest | null = null;
  #decoder: WalStreamDecoder | null = null;
  readonly #record = new WalRecord();

  constructor(options: BranchOptions) {
    this.id = options.id;
    this.source = options.source;
    this.truth = options.truth;
    this.leads = options.leads;
    this.#tally = options.tally;
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
    this.#timeline = manager.get(this.id);
    this.#datadir = new TimelineDatadir(this.#timeline, { version: this.source.server.major, shard: UNSHARDED_IDENTITY });
    this.#ingest = await WalIngest.start(this.#datadir);
    this.#decoder = new WalStreamDecoder(this.#timeline.lastRecordLsn, this.source.server.major, SEGMENT_SIZE);
    if (this.#toldLsn === 0) this.#toldLsn = this.#timeline.lastRecordLsn;
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

  async #take(ingest: WalIngest): Promise<void> {
    const interpreted = interpretRecord(this.#record, UNSHARDED_IDENTITY);
    if (this.leads && interpreted.endLsn > this.#toldLsn) {
      this.truth.observe(this.#record, interpreted.effect);
      this.#toldLsn = interpreted.endLsn;
    }
    this.#tally.records++;
    await ingest.ingest(interpreted);
  }

  get #lowestLsn(): Lsn {
    return Math.max(this.timeline.gcCutoffLsn, this.timeline.ancestor?.lsn ?? 0);
  }

  /** A batch of pages at one LSN, or one page at the record that made it. */
  async compare(random: Random): Promise<void> {
    const low = this.#lowestLsn;
    const high = this.timeline.lastRecordLsn;
    const lsn = random.below(4) === 0 ? high : low + random.below(high - low + 1);
    const exact = random.below(3) === 0 ? this.truth.pickRecord(random, low, high) : null;
    const questions: Question[] = exact === null ? [] : [exact];
    for (let i = 0; exact === null && i < BATCH_PAGES; i++) {
      const question = this.truth.pick(random, lsn);
      if (question !== null) questions.push(question);
    }
    if (questions.length > 0) await this.#ask(questions, random.below(16) === 0);
  }

  async #ask(questions: readonly Question[], withSizes: boolean): Promise<void> {
    const { lsn } = questions[0];
    // Mostly the storage alone: looking up sizes in the past costs several reads a relation.
    const pages = withSizes
      ? await this.datadir.at(lsn, CONTEXT).relPages(questions.map(({ page }) => ({ rel: page.rel, block: page.block })))
      : await this.timeline.getVectored(questions.map(({ page }) => relBlockKey(page.rel, page.block)), lsn, CONTEXT);
    for (let i = 0; i < questions.length; i++) {
      const bytes = pages[i];
      // The cutoff moved over the read while it was under way.
      if (bytes instanceof Error && lsn < this.timeline.gcCutoffLsn) continue;
      this.#tally.compared++;
      if (bytes instanceof Error || !isRight(questions[i], bytes)) this.#differ(questions[i], bytes);
    }
  }

  #differ(question: Question, bytes: Uint8Array | Error): void {
    const { ancestor, lastRecordLsn, gcCutoffLsn } = this.timeline;
    const where = `timeline ${this.id.slice(-4)} (branched at ${ancestor === null ? "-" : lsnToString(ancestor.lsn)}, cutoff ${lsnToString(gcCutoffLsn)}, last ${lsnToString(lastRecordLsn)})`;
    this.#tally.differences.push(`${where}: ${describeQuestion(question)}: ${bytes instanceof Error ? bytes.message : "another page"}`);
  }
}
