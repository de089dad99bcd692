/**
 * Heavy work on layers as jobs: plain inputs, files as output, no state shared but memory that does not change. `runLayerJob` does
 * one on whatever thread it is called; `LayerJobs` is how the rest of the pageserver asks for it.
 */
import type { FileSystem } from "../../platform/files.ts";
import type { FrozenContent } from "../layers/frozen-content.ts";
import { writeFrozen } from "../layers/frozen-content.ts";
import type { LayerTarget, WrittenLayer } from "../layers/layer-writer.ts";
import { Pacer } from "../layers/pacer.ts";
import type { Clock } from "../../platform/clock.ts";

/** A target without its file system: the thread that does the work has its own. */
export type JobTarget = Omit<LayerTarget, "files">;

export type LayerJob = { readonly kind: "write-frozen"; readonly content: FrozenContent; readonly target: JobTarget };

export interface JobEnvironment {
  readonly files: FileSystem;
  readonly clock: Clock;
  /** Infinite on a thread of its own. */
  readonly sliceMs?: number;
}

export async function runLayerJob(job: LayerJob, environment: JobEnvironment): Promise<WrittenLayer[]> {
  const { files, clock, sliceMs } = environment;
  return [await writeFrozen(job.content, { ...job.target, files }, new Pacer(clock, sliceMs))];
}

/** Does a job somewhere. @throws what the job threw: StrataErrors with their code */
export interface JobRunner {
  run(job: LayerJob): Promise<WrittenLayer[]>;
}

/** On this thread, in slices. */
export class JobsHere implements JobRunner {
  readonly #environment: JobEnvironment;

  constructor(environment: JobEnvironment) {
    this.#environment = environment;
  }

  run(job: LayerJob): Promise<WrittenLayer[]> {
    return runLayerJob(job, this.#environment);
  }
}

export class LayerJobs {
  readonly #runner: JobRunner;

  constructor(runner: JobRunner) {
    this.#runner = runner;
  }

  async writeFrozen(content: FrozenContent, target: LayerTarget): Promise<WrittenLayer> {
    const [written] = await this.#runner.run({ kind: "write-frozen", content, target: withoutFiles(target) });
    return written;
  }
}

function withoutFiles({ directory, uniqueName, tenantId, timelineId, generation, zstdLevel }: LayerTarget): JobTarget {
  return { directory, uniqueName, tenantId, timelineId, generation, zstdLevel };
}
