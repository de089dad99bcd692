/** What the threads of job-threads.test.ts do. */
import { StrataError } from "../../src/kit/errors.ts";
import { serveJobs } from "../../src/platform/real/job-threads.ts";

const actions: Readonly<Record<string, (value: number, cancel: { throwIfAborted(): void }) => Promise<unknown>>> = {
  double: async (value) => value * 2,
  refuse: async (value) => {
    throw new StrataError("corrupt", "bad-layer-index", "damaged", { cause: new Error("inside"), details: { value } });
  },
  stumble: async () => {
    throw new TypeError("a bug");
  },
  die: () => process.exit(3),
  until: async (_value, cancel) => {
    for (;;) {
      cancel.throwIfAborted();
      await Bun.sleep(1);
    }
  },
  write: async () => 0,
};

serveJobs(async (input, cancel) => {
  const { action, value, shared } = input as { action: string; value: number; shared?: Uint8Array };
  if (shared !== undefined) shared[0] = value;
  return await actions[action](value, cancel);
});
