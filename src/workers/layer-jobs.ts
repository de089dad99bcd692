/** A thread of the pageserver: makes layer files (src/pageserver/layer-jobs/). It has files and a clock of its own, and nothing else. */
import { type LayerJob, runLayerJob } from "../pageserver/layer-jobs/layer-jobs.ts";
import { realPlatform } from "../platform/real/real-platform.ts";
import { serveJobs } from "../platform/real/job-threads.ts";

const { files, clock } = realPlatform();

serveJobs((input, cancel) => runLayerJob(input as LayerJob, { files, clock, sliceMs: Number.POSITIVE_INFINITY, collect: () => Bun.gc(true) }, cancel));
