/**
 * Where the worker threads' entry points are. Beside main.ts, since in the executable every module's own address is the root that
 * the entry points lie under.
 */
export const WORKER_URLS = { layerJobs: new URL("./workers/layer-jobs.ts", import.meta.url).href } as const;
