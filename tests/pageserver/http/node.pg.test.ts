/** Routes of the node: failpoints at real places, throttling, eviction, utilization, a tenant's configuration. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { LSN_MAX } from "../../../src/kit/lsn.ts";
import { evictionOutcomeSchema, utilizationSchema } from "../../../src/pageserver/api/utilization.ts";
import { decodeResponse, encodeGetPage } from "../../../src/pageserver/api/pagestream.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

const ROOT = "aa".repeat(16);
const TENANT = `/v1/tenant/${TENANT_ID}`;
const server = new TestPageserver({ testingMode: true });
const failpoint = (name: string, actions: string) => server.http("PUT", "/v1/failpoints", [{ name, actions }]);
const patchConfig = (conf: Record<string, unknown>) => server.http("PATCH", "/v1/tenant/config", { tenant_id: TENANT_ID, ...conf });

beforeAll(async () => {
  await server.start();
  expect((await server.attach(1)).status).toBe(200);
  expect((await server.http("POST", `${TENANT}/timeline`, { new_timeline_id: ROOT, pg_version: 17 })).status).toBe(201);
}, 60_000);
afterAll(() => server.remove());

function layerFiles(): string[] {
  return readdirSync(join(server.workDirectory, "tenants", TENANT_ID, "timelines", ROOT)).filter((name) => name.includes("__"));
}

/** Reads block 0 of pg_class so many times over one stream, and tells how long that took. */
async function readPages(count: number): Promise<number> {
  const client = await server.client();
  const stream = await client.copyBoth(`pagestream_v3 ${TENANT_ID} ${ROOT}`);
  const startMs = performance.now();
  for (let i = 0; i < count; i++) stream.write(encodeGetPage({ requestId: 7n, requestLsn: LSN_MAX, notModifiedSince: 8 }, { rel: { spcOid: 1663, dbOid: 5, relNumber: 1259, fork: 0 }, block: 0 }, 3));
  for (let i = 0; i < count; i++) expect(decodeResponse((await stream.read()) as Uint8Array, 3).body.length).toBe(41 + 8192);
  const tookMs = performance.now() - startMs;
  client.destroy();
  return tookMs;
}

describe("failpoints", () => {
  test("are refused by a pageserver that is not in testing mode, and when they make no sense", async () => {
    const plain = new TestPageserver();
    await plain.start();
    expect((await plain.http("PUT", "/v1/failpoints", [{ name: "before-upload-index", actions: "return" }])).status).toBe(400);
    await plain.remove();
    expect((await failpoint("before-upload-index", "explode")).status).toBe(400);
  });

  test("hold up what they are placed before, until they are off", async () => {
    const path = `${TENANT}/timeline/${"bb".repeat(16)}`;
    expect((await failpoint("before-upload-index-pausable", "pause")).status).toBe(200);
    let created = false;
    const creating = server.http("POST", `${TENANT}/timeline`, { new_timeline_id: "bb".repeat(16), ancestor_timeline_id: ROOT }).then((reply) => {
      created = true;
      return reply;
    });
    await Bun.sleep(300);
    expect(created).toBe(false);
    await failpoint("before-upload-index-pausable", "off");
    expect((await creating).status).toBe(201);
    await failpoint("timeline-delete-before-index-deleted-at", "1*return(not now)");
    const refused = await server.http("DELETE", path);
    expect([refused.status, JSON.stringify(refused.json)]).toEqual([503, expect.stringContaining("not now")]);
    expect((await server.http("DELETE", path)).status).toBe(202);
    expect((await server.http("GET", path)).status).toBe(404);
  });
});

test("evicting by hand frees what was asked for, keeps count, and pages are there all the same", async () => {
  expect((await server.http("PUT", `${TENANT}/timeline/${ROOT}/checkpoint?force_image_layer_creation=true&wait_until_uploaded=true`)).status).toBe(200);
  const before = layerFiles().length;
  expect(before).toBeGreaterThan(0);
  const run = async (evictBytes: number) => evictionOutcomeSchema.parse((await server.http("PUT", "/v1/disk_usage_eviction/run", { evict_bytes: evictBytes })).json);
  expect(await run(0)).toBe("NoPressure");
  const outcome = await run(1e12);
  if (outcome === "NoPressure") throw new Error("there was pressure");
  expect(outcome.Finished.planned.fallback_to_global_lru?.freed_bytes).toBe(outcome.Finished.assumed.projected_after.freed_bytes);
  expect(outcome.Finished.assumed.failed.count).toBe(0);
  expect(layerFiles()).toEqual([]);
  expect(await readPages(1)).toBeLessThan(10_000);
  expect(layerFiles().length).toBeGreaterThan(0);
  expect((await server.http("PUT", "/v1/disk_usage_eviction/run", { evict_bytes: -1 })).status).toBe(400);
});

test("a single layer is dropped and fetched by its name", async () => {
  const { historic_layers: layers } = (await server.http("GET", `${TENANT}/timeline/${ROOT}/layer`)).json as { historic_layers: { layer_file_name: string; remote: boolean }[] };
  const path = `${TENANT}/timeline/${ROOT}/layer/${layers[0].layer_file_name}`;
  const statuses: number[] = [];
  for (const method of ["GET", "GET", "DELETE", "DELETE", "GET"]) statuses.push((await server.http(method, path)).status);
  expect(statuses.slice(1)).toEqual([304, 200, 304, 200]);
  expect((await server.http("GET", `${TENANT}/timeline/${ROOT}/layer/nonsense`)).status).toBe(404);
});

test("utilization", async () => {
  const told = utilizationSchema.parse((await server.http("GET", "/v1/utilization")).json);
  expect(told.disk_wanted_bytes).toBeGreaterThan(1e6);
  expect([told.shard_count, told.disk_usable_pct]).toEqual([1, 100]);
  expect(told.free_space_bytes).toBeGreaterThan(0);
  expect(Math.abs(Date.parse(told.captured_at) - Date.now())).toBeLessThan(60_000);
});

test("a throttled tenant's pages come at its rate; metrics tell; without the limit they come as before", async () => {
  const limit = { task_kinds: ["PageRequestHandler"], initial: 10, refill_interval: "100ms", refill_amount: 10, max: 10 };
  expect((await patchConfig({ timeline_get_throttle: limit })).status).toBe(200);
  expect(await readPages(110)).toBeGreaterThan(900);
  const metrics = await (await fetch(`http://127.0.0.1:${server.running.httpPort}/metrics`)).text();
  expect(Number(/pageserver_tenant_throttling_wait_usecs_sum_global\{kind="pagestream"\} (\d+)/.exec(metrics)?.[1])).toBeGreaterThan(500_000);
  expect(metrics).toContain(`pageserver_tenant_throttling_count_accounted_start{kind="pagestream",tenant_id="${TENANT_ID}",shard_id="0000"}`);
  expect((await patchConfig({ timeline_get_throttle: { ...limit, refill_interval: "0s" } })).status).toBe(400);
  expect((await patchConfig({ timeline_get_throttle: null })).status).toBe(200);
  await readPages(110);
});

describe("a tenant's configuration", () => {
  const overrides = async () => ((await server.http("GET", `${TENANT}/config`)).json as { tenant_specific_overrides: Record<string, unknown> }).tenant_specific_overrides;

  test("PATCH: null unsets, absent keeps; PUT: absent unsets; bad values change nothing; it outlives a restart", async () => {
    expect((await server.http("PUT", "/v1/tenant/config", { tenant_id: TENANT_ID, gc_horizon: 1024, pitr_interval: "1 day" })).status).toBe(200);
    expect(await overrides()).toEqual({ gc_horizon: 1024, pitr_interval: "1 day" });
    expect((await patchConfig({ gc_horizon: null, checkpoint_distance: 1_000_000 })).status).toBe(200);
    expect(await overrides()).toEqual({ pitr_interval: "1 day", checkpoint_distance: 1_000_000 });
    for (const bad of [{ gc_horizon: "much" }, { pitr_interval: "soon" }, { eviction_policy: { kind: "Sometimes" } }]) expect([bad, (await patchConfig(bad)).status]).toEqual([bad, 400]);
    expect(await overrides()).toEqual({ pitr_interval: "1 day", checkpoint_distance: 1_000_000 });
    await server.stop();
    await server.start();
    expect(await overrides()).toEqual({ pitr_interval: "1 day", checkpoint_distance: 1_000_000 });
    expect((await server.http("PUT", "/v1/tenant/config", { tenant_id: TENANT_ID })).status).toBe(200);
    expect(await overrides()).toEqual({});
    expect((await server.http("PATCH", "/v1/tenant/config", { tenant_id: "f".repeat(32), gc_horizon: 1 })).status).toBe(404);
  });

  test("a broken tenant says why", async () => {
    expect((await server.http("PUT", `${TENANT}/break`)).status).toBe(200);
    expect((await server.http("GET", TENANT)).json).toMatchObject({ state: { slug: "Broken", data: { reason: expect.stringContaining("broken from test") } } });
  });
});
