/** `strata --role pageserver`, or the symlink pageserver. */
import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { loadPageserverConfig } from "../../pageserver/config.ts";
import { startPageserver } from "../../pageserver/pageserver.ts";
import { processMemory } from "../../platform/real/process-memory.ts";
import { RealJobThreads } from "../../platform/real/job-threads.ts";
import { PAGESERVER_OPTIONS } from "./pageserver-options.ts";
import { type RoleContext, roleProgram } from "./run-role.ts";

/** More would only fight over the disk. */
const DEFAULT_THREADS_MAX = 4;

/** One processor is the main thread's. */
function jobThreads({ workers }: RoleContext, wanted: number | null): RealJobThreads | undefined {
  const count = wanted ?? Math.max(1, Math.min(DEFAULT_THREADS_MAX, availableParallelism() - 1));
  return workers === undefined || count === 0 ? undefined : new RealJobThreads(workers.layerJobs, count);
}

export const pageserverProgram = roleProgram({
  name: "pageserver",
  description: "Turns WAL into pages as of any LSN.",
  options: PAGESERVER_OPTIONS,
  start: async (values, context) =>
    startPageserver(await loadPageserverConfig(context.platform.files, resolve(values.workdir), { environment: process.env, log: context.log }), {
      ...context,
      jobThreads: jobThreads(context, values.jobThreads),
      memoryLimitBytes: values.memoryLimit,
      processMemory,
    }),
});
