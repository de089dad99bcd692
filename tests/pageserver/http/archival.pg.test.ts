/** Archived and offloaded timelines, heatmaps: over HTTP, and as the bucket has them. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { decodeTenantManifest } from "../../../src/pageserver/remote-timeline/tenant-manifest.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

const ROOT = "aa".repeat(16);
const BRANCH = "bb".repeat(16);
const TENANT = `/v1/tenant/${TENANT_ID}`;
const server = new TestPageserver();
const object = (name: string) => join(server.root, "bucket/tenants", TENANT_ID, name);
const archive = (timeline: string, state: string) => server.http("PUT", `${TENANT}/timeline/${timeline}/archival_config`, { state });

beforeAll(async () => {
  await server.start();
  expect((await server.attach(1, { timeline_offloading: false })).status).toBe(200);
  expect((await server.http("POST", `${TENANT}/timeline`, { new_timeline_id: ROOT, pg_version: 17 })).status).toBe(201);
  expect((await server.http("POST", `${TENANT}/timeline`, { new_timeline_id: BRANCH, ancestor_timeline_id: ROOT })).status).toBe(201);
}, 60_000);
afterAll(() => server.remove());

test("archiving needs archived children, unarchiving an ancestor in use; an archived one has no new branches", async () => {
  expect((await archive(ROOT, "Archived")).status).toBe(412);
  expect((await archive(BRANCH, "Archived")).status).toBe(200);
  expect((await archive(BRANCH, "Archived")).status).toBe(200);
  expect((await server.http("GET", `${TENANT}/timeline/${BRANCH}`)).json).toMatchObject({ is_archived: true });
  expect((await archive(ROOT, "Archived")).status).toBe(200);
  expect((await archive(BRANCH, "Unarchived")).status).toBe(412);
  expect((await server.http("POST", `${TENANT}/timeline`, { new_timeline_id: "cc".repeat(16), ancestor_timeline_id: ROOT })).status).toBe(406);
  expect((await archive(ROOT, "Unarchived")).status).toBe(200);
  expect((await archive("dd".repeat(16), "Archived")).status).toBe(404);
  expect((await archive(ROOT, "Frozen")).status).toBe(400);
});

test("offloaded: told apart, over a restart too, and whole when taken up again", async () => {
  expect((await server.http("PUT", `${TENANT}/timeline/${ROOT}/offload`)).status).toBe(409);
  expect((await server.http("PUT", `${TENANT}/timeline/${BRANCH}/offload`)).status).toBe(200);
  const both = async () => (await server.http("GET", `${TENANT}/timeline_and_offloaded`)).json as { timelines: { timeline_id: string }[]; offloaded: { timeline_id: string; ancestor_timeline_id: string; archived_at: string }[] };
  const check = async () => {
    const { timelines, offloaded } = await both();
    expect([timelines.map((one) => one.timeline_id), offloaded.map((one) => [one.timeline_id, one.ancestor_timeline_id])]).toEqual([[ROOT], [[BRANCH, ROOT]]]);
    expect(Date.now() - Date.parse(offloaded[0].archived_at)).toBeLessThan(60_000);
    expect((await server.http("GET", `${TENANT}/timeline/${BRANCH}`)).status).toBe(404);
    expect(existsSync(join(server.workDirectory, "tenants", TENANT_ID, "timelines", BRANCH))).toBe(false);
  };
  await check();
  expect(decodeTenantManifest(readFileSync(object("tenant-manifest-00000001.json"))).offloaded.map(({ timelineId }) => timelineId)).toEqual([BRANCH]);
  await server.stop();
  await server.start();
  await check();
  expect((await server.http("DELETE", `${TENANT}/timeline/${ROOT}`)).status).toBe(412);
  expect((await archive(BRANCH, "Unarchived")).status).toBe(200);
  expect((await both()).offloaded).toEqual([]);
  expect((await server.http("GET", `${TENANT}/timeline/${BRANCH}`)).json).toMatchObject({ is_archived: false, ancestor_timeline_id: ROOT });
});

test("a heatmap names the layers on disk; uploaded by hand, and each period when they have changed", async () => {
  expect((await server.http("POST", `${TENANT}/heatmap_upload`)).status).toBe(200);
  const heatmap = () => JSON.parse(readFileSync(object("heatmap-v1.json"), "utf8")) as { generation: number; upload_period_ms: number | null; timelines: { timeline_id: string; layers: { name: string; metadata: { file_size: number; generation: number }; access_time: number; cold: boolean }[] }[] };
  const { generation, timelines, upload_period_ms: period } = heatmap();
  expect([generation, period, timelines.map((one) => one.timeline_id)]).toEqual([1, null, [ROOT, BRANCH]]);
  const layers = (await server.http("GET", `${TENANT}/timeline/${ROOT}/layer`)).json as { historic_layers: { layer_file_name: string; layer_file_size: number }[] };
  expect(timelines[0].layers.map(({ name, metadata }) => [name, metadata.file_size]).sort()).toEqual(layers.historic_layers.map((one) => [one.layer_file_name, one.layer_file_size]).sort());
  expect(timelines[0].layers[0]).toMatchObject({ metadata: { generation: 1 }, cold: false });
  expect(Math.abs(timelines[0].layers[0].access_time - Date.now() / 1000)).toBeLessThan(120);
  expect((await server.http("PATCH", "/v1/tenant/config", { tenant_id: TENANT_ID, heatmap_period: "1s" })).status).toBe(200);
  expect((await archive(BRANCH, "Archived")).status).toBe(200);
  for (let i = 0; i < 100 && heatmap().upload_period_ms === null; i++) await Bun.sleep(100);
  expect([heatmap().upload_period_ms, heatmap().timelines.map((one) => one.timeline_id)]).toEqual([1000, [ROOT]]);
}, 30_000);

test("what was archived is offloaded by itself where the tenant wants that", async () => {
  expect((await server.http("PATCH", "/v1/tenant/config", { tenant_id: TENANT_ID, timeline_offloading: null })).status).toBe(200);
  let status = 200;
  for (let i = 0; i < 300 && status === 200; i++) {
    await Bun.sleep(100);
    ({ status } = await server.http("GET", `${TENANT}/timeline/${BRANCH}`));
  }
  expect(status).toBe(404);
  // It is gone from memory a moment before its offloading is over: until then it is busy.
  for (let i = 0; i < 100 && (status === 404 || status === 409); i++) {
    ({ status } = await server.http("DELETE", `${TENANT}/timeline/${BRANCH}`));
    if (status === 409) await Bun.sleep(50);
  }
  expect(status).toBe(202);
  expect((await server.http("DELETE", `${TENANT}/timeline/${ROOT}`)).status).toBe(202);
}, 60_000);
