/** When synthetic sizes are calculated. */
import { expect, test } from "bun:test";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import { sizeTasks } from "../../../src/pageserver/size/size-tasks.ts";
import type { Tenants } from "../../../src/pageserver/tenant/tenants.ts";

const calculated: string[] = [];
const tenant = (id: string, state: string) => ({ state, size: { calculate: async () => void calculated.push(id) } });
const tenants = {
  list: () => [
    { id: { tenantId: "a", number: 0, count: 0 }, tenant: tenant("a", "active") },
    { id: { tenantId: "b", number: 1, count: 2 }, tenant: tenant("b", "active") },
    { id: { tenantId: "c", number: 0, count: 0 }, tenant: tenant("c", "attaching") },
    { id: { tenantId: "d", number: 0, count: 0 }, tenant: null },
  ],
} as unknown as Tenants;
const synthetic = (intervalMs: number, isAwaited?: boolean) => {
  const task = sizeTasks({ tenants, log: new RecordingLogger(), syntheticSizeIntervalMs: intervalMs, ...(isAwaited === undefined ? {} : { isAwaited }) }).find(({ name }) => name === "synthetic sizes");
  if (task === undefined) throw new Error("there is no such task");
  return task;
};

test("soon after the start where somebody is told, then every interval; of shard zero of who is active", async () => {
  const task = synthetic(600_000, true);
  expect(task.periodMs()).toBe(10_000);
  await task.run(new AbortController().signal);
  expect([task.periodMs(), task.overrun?.periodMs(), calculated]).toEqual([600_000, 600_000, ["a"]]);
  expect([synthetic(600_000).periodMs(), synthetic(2000, true).periodMs(), synthetic(0, true).periodMs()]).toEqual([600_000, 2000, 0]);
});
