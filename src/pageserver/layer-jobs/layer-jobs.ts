/**
 * Heavy work on layers as jobs: plain inputs, files as output, no state shared but memory that does not change. `runLayerJob` does
 * one on whatever thread it is called; `LayerJobs` is how the rest of the pageserver asks for it.
 */
import type { FileSystem } from "../../platform/files.ts";
import { countedFiles, IoCounts, type IoData } from "../counts/io-counts.ts";
import { ReadCounts, type ReadData } from "../counts/read-counts.ts";
import type { StorageCounts } from "../counts/storage-counts.ts";
import type { FrozenContent } from "../layers/frozen-content.ts";
import { writeFrozen } from "../layers/frozen-content.ts";
import type { JobTarget, LayerTarget, WrittenLayer } from "../layers/layer-writer.ts";
import { Pacer } from "../layers/pacer.ts";
import type { Clock } from "../../platform/clock.ts";
import type { JobCancel, JobThreads } from "../../platform/job-threads.ts";
import { type CompactL0Job, compactL0Files } from "./compact-l0.ts";
import { type CreateImageJob, createImageFile } from "./create-image.ts";

export type LayerJob =
  | { readonly kind: "write-frozen"; readonly content: FrozenContent; readonly target: JobTarget }
  | ({ readonly kind: "compact-l0" } & CompactL0Job)
  | ({ readonly kind: "create-image" } & CreateImageJob);

export interface JobEnvironment {
  readonly files: FileSystem;
  readonly clock: Clock;
  /** Infinite on a thread of its own. */
  readonly sliceMs?: number;
  /** Collects garbage: asked for as a job makes it, on threads whose collector does not know the process's limit. */
  readonly collect?: () => void;
}

/** What a job made and what it counted, as plain data. */
export interface JobResult {
  readonly layers: WrittenLayer[];
  readonly reads: ReadData | null;
  readonly io: IoData;
}

/** @throws StrataError, from the disk and from damaged input; what `cancel` throws */
export async function runLayerJob(job: LayerJob, environment: JobEnvironment, cancel: JobCancel): Promise<JobResult> {
  const { clock, sliceMs, collect } = environment;
  const pacer = new Pacer(clock, sliceMs);
  const io = new IoCounts();
  const files = countedFiles(environment.files, { clock, counts: io });
  if (job.kind === "write-frozen") return { layers: [await writeFrozen(job.content, { ...job.target, files }, pacer)], reads: null, io: io.toData() };
  if (job.kind === "compact-l0") return { layers: await compactL0Files(job, { files, pacer, cancel, collect }), reads: null, io: io.toData() };
  const counts = new ReadCounts();
  const image = await createImageFile(job, { files, clock, pacer, cancel, collect, counts });
  return { layers: image === null ? [] : [image], reads: counts.toData(), io: io.toData() };
}

/** Does a job somewhere. @throws what the job threw: StrataErrors with their code; the signal's reason */
export interface JobRunner {
  run(job: LayerJob, signal?: AbortSignal): Promise<JobResult>;
}

/** On threads of their own. */
export class JobsOnThreads implements JobRunner {
  readonly #threads: JobThreads;

  constructor(threads: JobThreads) {
    this.#threads = threads;
  }

  async run(job: LayerJob, signal?: AbortSignal): Promise<JobResult> {
    return (await this.#threads.run(job, signal)) as JobResult;
  }
}

/** On this thread, in slices. */
export class JobsHere implements JobRunner {
  readonly #environment: JobEnvironment;

  constructor(environment: JobEnvironment) {
    this.#environment = environment;
  }

  run(job: LayerJob, signal: AbortSignal = new AbortController().signal): Promise<JobResult> {
    return runLayerJob(job, this.#environment, signal);
  }
}

export class LayerJobs {
  readonly #runner: JobRunner;
  readonly #counts: StorageCounts | null;

  /** @param counts told what jobs counted */
  constructor(runner: JobRunner, counts: StorageCounts | null = null) {
    this.#runner = runner;
    this.#counts = counts;
  }

  async #run(job: LayerJob, signal?: AbortSignal): Promise<WrittenLayer[]> {
    const { layers, reads, io } = await this.#runner.run(job, signal);
    const counts = this.#counts;
    counts?.io.add(io);
    if (reads !== null) counts?.reads.add(reads);
    for (const { compression } of layers) if (compression !== undefined) counts?.addCompression(compression);
    return layers;
  }

  async writeFrozen(content: FrozenContent, target: LayerTarget): Promise<WrittenLayer> {
    const [written] = await this.#run({ kind: "write-frozen", content, target: withoutFiles(target) });
    return written;
  }

  /** Merges L0 layers into L1 layers cut by key, synced; the caller syncs the directory. */
  compactL0(job: CompactL0Job, signal: AbortSignal): Promise<WrittenLayer[]> {
    return this.#run({ kind: "compact-l0", ...job }, signal);
  }

  /** Makes an image layer, synced; the caller syncs the directory. Null when it would be empty. */
  async createImage(job: CreateImageJob, signal: AbortSignal): Promise<WrittenLayer | null> {
    const [written] = await this.#run({ kind: "create-image", ...job }, signal);
    return written ?? null;
  }
}

export function withoutFiles({ directory, uniqueName, tenantId, timelineId, generation, zstdLevel }: LayerTarget): JobTarget {
  return { directory, uniqueName, tenantId, timelineId, generation, zstdLevel };
}
