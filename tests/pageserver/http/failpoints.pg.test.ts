/** The peer's failpoints are where their operations are: each is passed when that happens. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

setDefaultTimeout(120_000);

const ROOT = "aa".repeat(16);
const BRANCH = "bb".repeat(16);
const TENANT = `/v1/tenant/${TENANT_ID}`;
const TIMELINE = `${TENANT}/timeline/${ROOT}`;
const server = new TestPageserver({ testingMode: true });
beforeAll(async () => {
  server.log.expectWarn(/testing mode/);
  await server.start();
});
afterAll(() => server.remove());

async function ok(method: string, path: string, body?: unknown): Promise<unknown> {
  const reply = await server.http(method, path, body);
  expect([method, path, reply.status < 300, reply.json]).toEqual([method, path, true, reply.json]);
  return reply.json;
}

/** Watches `names`, does `work`, and expects each to have been passed. */
async function passes(names: readonly string[], work: () => Promise<unknown>): Promise<void> {
  await ok("PUT", "/v1/failpoints", names.map((name) => ({ name, actions: "print(passed)" })));
  const before = server.log.entries.length;
  await work();
  const deadlineMs = performance.now() + 30_000;
  const passed = (): Set<unknown> => new Set(server.log.entries.slice(before).filter(({ message }) => message === "failpoint hit").map(({ fields }) => fields?.failpoint));
  while (!names.every((name) => passed().has(name)) && performance.now() < deadlineMs) await Bun.sleep(50);
  expect(names.filter((name) => !passed().has(name))).toEqual([]);
  await ok("PUT", "/v1/failpoints", names.map((name) => ({ name, actions: "off" })));
}

const checkpoint = () => ok("PUT", `${TIMELINE}/checkpoint?force_l0_compaction=true&force_image_layer_creation=true&wait_until_uploaded=true`);

test("attaching, configuring and creating", async () => {
  const conf = { gc_period: "0s", compaction_period: "0s", pitr_interval: "0s", gc_horizon: 0 };
  await passes(["before-attaching-tenant", "storage-sync-list-remote-timelines", "attach-before-activate", "put-location-conf-handler"], () => server.attach(1, conf));
  await passes(["tenant-config-before-write"], () => ok("PATCH", "/v1/tenant/config", { tenant_id: TENANT_ID, checkpoint_timeout: "1h" }));
  await passes(["timeline-creation-after-uninit", "after-timeline-dir-creation", "before-checkpoint-new-timeline", "flush-frozen", "flush-layer-cancel-after-writing-layer-out", "checkpoint-before-saving-metadata", "flush-frozen-exit", "before-upload-layer", "before-upload-index"], () =>
    ok("POST", `${TENANT}/timeline`, { new_timeline_id: ROOT, pg_version: 17 }),
  );
});

test("images, garbage and downloads", async () => {
  await passes(["image-layer-writer-fail-before-finish"], checkpoint);
  await passes(["immediate_gc_task_pre", "before-timeline-gc", "Timeline::find_gc_cutoffs", "gc_iteration_internal_after_getting_gc_timelines"], async () => {
    expect((await server.http("PUT", `${TIMELINE}/do_gc`, {})).status).toBe(200);
  });
  const { historic_layers: layers } = (await ok("GET", `${TIMELINE}/layer`)) as { historic_layers: { layer_file_name: string }[] };
  await ok("DELETE", `${TIMELINE}/layer/${layers[0].layer_file_name}`);
  await passes(["before-downloading-layer-stream", "remote-storage-download-pre-rename"], () => ok("GET", `${TIMELINE}/layer/${layers[0].layer_file_name}`));
});

test("one that fails keeps the layers as they were, and the next time it works", async () => {
  await ok("POST", `${TENANT}/timeline`, { new_timeline_id: BRANCH, ancestor_timeline_id: ROOT });
  const branch = `${TENANT}/timeline/${BRANCH}`;
  await ok("PUT", "/v1/failpoints", [{ name: "image-layer-writer-fail-before-finish", actions: "1*return(now)" }]);
  const failed = await server.http("PUT", `${branch}/checkpoint?force_image_layer_creation=true`);
  expect([failed.status, JSON.stringify(failed.json)]).toEqual([503, expect.stringContaining("image-layer-writer-fail-before-finish")]);
  expect(((await ok("GET", `${branch}/layer`)) as { historic_layers: unknown[] }).historic_layers).toEqual([]);
  await ok("PUT", `${branch}/checkpoint?force_image_layer_creation=true`);
  expect(((await ok("GET", `${branch}/layer`)) as { historic_layers: unknown[] }).historic_layers.length).toBeGreaterThan(0);
});

test("backups", async () => {
  await passes(["ps::connection-start::process-query", "basebackup-before-control-file"], async () => {
    const client = await server.client();
    const copy = await client.copyOut(`basebackup ${TENANT_ID} ${ROOT}`);
    while ((await copy.read()) !== null) continue;
    client.destroy();
  });
});

test("deleting", async () => {
  await passes(["timeline-delete-before-index-deleted-at", "persist_deleted_index_part", "timeline-delete-before-schedule", "in_progress_delete", "timeline-delete-before-index-delete", "timeline-delete-after-index-delete", "timeline-delete-before-rm", "timeline-delete-after-rm"], () =>
    ok("DELETE", `${TENANT}/timeline/${BRANCH}`),
  );
});

test("counting a size after a restart", async () => {
  await server.stop();
  await server.start();
  await passes(["initial-size-calculation-permit-pause", "timeline-calculate-logical-size-pause"], async () => {});
});
