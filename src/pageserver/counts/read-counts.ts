/**
 * What reads of pages did: how deep they went, what they found, how long redo took. One for a whole pageserver; a job on another thread
 * has its own, which comes back with the job's result and is added.
 */
import { Histogram, type HistogramData } from "../../observability/metric-values.ts";
import { CRITICAL_SECONDS, DELTAS, LAYERS, LAYERS_A_KEY, REDO_BYTES, REDO_RECORDS, REDO_SECONDS } from "./bounds.ts";

/** The peer's words for who reads. */
const TASK_KINDS = new Map([
  ["page-service", "PageRequestHandler"],
  ["basebackup", "PageRequestHandler"],
  ["image-creation", "Compaction"],
  ["gc", "GarbageCollector"],
  ["ingest", "WalReceiverConnectionHandler"],
  ["wal-receiver", "WalReceiverConnectionHandler"],
  ["walreceiver", "WalReceiverConnectionHandler"],
  ["logical-size", "InitialLogicalSizeCalculation"],
  ["size", "CalculateSyntheticSize"],
  ["http", "MgmtRequest"],
]);

/** What it is called in `task_kind`; the word itself where the peer has none. */
export function taskKindOf(task: string): string {
  return TASK_KINDS.get(task) ?? task;
}

const TASKS_MAX = 64;
const JOB_TASK = "image-creation";

/** Histograms of one kind by who asked. */
export class ByTask {
  readonly #bounds: readonly number[];
  readonly all = new Map<string, Histogram>();

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
  }

  of(task: string): Histogram {
    const kind = taskKindOf(task);
    let known = this.all.get(kind);
    if (known === undefined) {
      if (this.all.size >= TASKS_MAX) return this.of("other");
      known = new Histogram(this.#bounds);
      this.all.set(kind, known);
    }
    return known;
  }
}

const OF_JOBS = ["layersVisited", "layers", "batches", "amortized", "deltas", "redoSeconds", "redoRecords", "redoBytes"] as const;

/** What a job has counted, as plain data. */
export interface ReadData {
  readonly histograms: Readonly<Record<(typeof OF_JOBS)[number], HistogramData>>;
  readonly replayedRecords: number;
  /** Its vectored reads: those for images. */
  readonly vectored: HistogramData;
}

/** The time it took to find what a page is made of, and to make it. */
interface Durations {
  readonly data: Histogram;
  readonly reconstruct: Histogram;
}

export class ReadCounts {
  readonly vectored = new ByTask(CRITICAL_SECONDS);
  readonly scans = new ByTask(CRITICAL_SECONDS);
  /** Of one key, and of several. */
  readonly one: Durations = { data: new Histogram(CRITICAL_SECONDS), reconstruct: new Histogram(CRITICAL_SECONDS) };
  readonly several: Durations = { data: new Histogram(CRITICAL_SECONDS), reconstruct: new Histogram(CRITICAL_SECONDS) };
  /** Layers looked into, a key on the average. */
  readonly layersVisited = new Histogram(LAYERS_A_KEY);
  /** Of each key. */
  readonly layers = new Histogram(LAYERS);
  /** Of all keys of a read together: a layer counts for each key that was looked for in it. */
  readonly batches = new Histogram(LAYERS);
  readonly amortized = new Histogram(LAYERS);
  /** Records that a page was made of. */
  readonly deltas = new Histogram(DELTAS);
  readonly redoSeconds = new Histogram(REDO_SECONDS);
  readonly redoRecords = new Histogram(REDO_RECORDS);
  readonly redoBytes = new Histogram(REDO_BYTES);
  replayedRecords = 0;
  /** Page requests that were answered without waiting, from layers. */
  pagesMade = 0;
  readonly #pageService = this.vectored.of("page-service");

  /** A page was made; without records nothing was replayed. */
  reconstructed(records: number, bytes: number, durationMs: number): void {
    this.deltas.observe(records);
    if (records === 0) return;
    this.replayedRecords += records;
    this.redoSeconds.recordMs(durationMs);
    this.redoRecords.observe(records);
    this.redoBytes.observe(bytes);
  }

  /** A page request was answered without waiting, from layers. */
  pageMade(layers: number, totalMs: number, redoMs: number): void {
    this.pagesMade++;
    this.#pageService.recordMs(totalMs);
    this.one.data.recordMs(totalMs - redoMs);
    this.one.reconstruct.recordMs(redoMs);
    this.layers.observe(layers);
    this.visited(layers, 1);
  }

  /** Pages that were there as a whole: no layer was looked into. */
  pagesFound(pages: number): void {
    this.layers.observe(0, pages);
  }

  visited(layers: number, keys: number): void {
    this.batches.observe(layers);
    this.amortized.observe(layers / keys);
    this.layersVisited.observe(layers / keys);
  }

  /** A vectored read has ended. The layers of each key were told by then. */
  read(task: string, { keys, layers, totalMs, redoMs }: { readonly keys: number; readonly layers: number; readonly totalMs: number; readonly redoMs: number }): void {
    this.vectored.of(task).recordMs(totalMs);
    const durations = keys === 1 ? this.one : this.several;
    durations.data.recordMs(totalMs - redoMs);
    durations.reconstruct.recordMs(redoMs);
    this.visited(layers, Math.max(1, keys));
  }

  toData(): ReadData {
    const { layersVisited, layers, batches, amortized, deltas, redoSeconds, redoRecords, redoBytes, replayedRecords } = this;
    return { histograms: { layersVisited, layers, batches, amortized, deltas, redoSeconds, redoRecords, redoBytes }, replayedRecords, vectored: this.vectored.of(JOB_TASK) };
  }

  add({ histograms, replayedRecords, vectored }: ReadData): void {
    for (const name of OF_JOBS) this[name].add(histograms[name]);
    this.replayedRecords += replayedRecords;
    this.vectored.of(JOB_TASK).add(vectored);
  }
}
