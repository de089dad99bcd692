import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { chmod, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CONTROLLER_DEFAULTS, type ControllerConfig } from "../../src/controller/config.ts";
import { type RunningController, startController } from "../../src/controller/controller.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { FakePageserver } from "./fake-pageserver.ts";

const TENANT = "1".repeat(32);
const TIMELINE = "2".repeat(32);
let directory: string;
let config: ControllerConfig;
let controller: RunningController;
const pageservers: FakePageserver[] = [];
const log = new RecordingLogger();

async function start(): Promise<void> {
  const migrationsDirectory = join(import.meta.dir, "../../migrations");
  const names = await readdir(migrationsDirectory);
  const migrations = await Promise.all(names.map(async (name) => ({ name, sql: await readFile(join(migrationsDirectory, name), "utf8") })));
  controller = await startController(config, { platform: realPlatform(), log, version: "test", migrations });
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "strata-controller-"));
  await chmod(directory, 0o755);
  config = { ...CONTROLLER_DEFAULTS, listenPort: 0, dataDirectory: join(directory, "controller"), heartbeatIntervalMs: 50, offlineAfterMs: 300 };
  await start();
}, 60_000);

afterAll(async () => {
  await controller.stop();
  await rm(directory, { recursive: true });
  log.assertQuiet();
});

afterEach(async () => {
  for (const { tenant_id } of (await call("GET", "/control/v1/tenant")).body as { tenant_id: string }[]) await call("DELETE", `/v1/tenant/${tenant_id}`);
  for (const { id } of (await call("GET", "/control/v1/node")).body as { id: number }[]) await call("DELETE", `/control/v1/node/${id}`);
  await Promise.all(pageservers.splice(0).map((one) => one.stop()));
});

async function call(method: string, path: string, body?: unknown): Promise<{ status: number; body: unknown }> {
  const reply = await fetch(`http://127.0.0.1:${controller.httpPort}${path}`, { method, ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }) });
  const text = await reply.text();
  return { status: reply.status, body: text === "" ? null : JSON.parse(text) };
}

async function eventually(check: () => Promise<boolean> | boolean, what: string): Promise<void> {
  for (let round = 0; round < 200; round++) {
    if (await check()) return;
    await Bun.sleep(25);
  }
  throw new Error(`never: ${what}`);
}

async function pageserver(id: number, az?: string): Promise<FakePageserver> {
  const one = new FakePageserver();
  pageservers.push(one);
  expect((await call("POST", "/control/v1/node", one.register(id, az))).status).toBe(200);
  await eventually(async () => ((await call("GET", `/control/v1/node/${id}`)).body as { availability: string }).availability === "Active", "node active");
  return one;
}

async function createTenant(extra: Record<string, unknown> = {}): Promise<{ shards: { node_id: number; generation: number; shard_id: string }[] }> {
  const created = await call("POST", "/v1/tenant", { new_tenant_id: TENANT, ...extra });
  expect(created.status).toBe(201);
  return created.body as { shards: { node_id: number; generation: number; shard_id: string }[] };
}

test("a tenant is attached under generation 1 and located", async () => {
  const node = await pageserver(7);
  const created = await createTenant({ gc_horizon: 1000 });
  expect(created.shards).toEqual([{ shard_id: TENANT, node_id: 7, generation: 1 }]);
  expect(node.locations.get(TENANT)).toMatchObject({ mode: "AttachedSingle", generation: 1, tenant_conf: { gc_horizon: 1000 } });
  const located = (await call("GET", `/debug/v1/tenant/${TENANT}/locate`)).body as { shards: { node_id: number }[] };
  expect(located.shards.map((shard) => shard.node_id)).toEqual([7]);
  expect((await createTenant()).shards[0]?.generation).toBe(1);
  expect((await call("POST", "/debug/v1/consistency_check")).status).toBe(200);
});

test("without a pageserver nothing is half created", async () => {
  expect((await call("POST", "/v1/tenant", { new_tenant_id: TENANT })).status).toBe(503);
  expect((await call("GET", `/control/v1/tenant/${TENANT}`)).status).toBe(404);
});

test("a restarted pageserver gets the next generation, and older ones are not valid any more", async () => {
  const node = await pageserver(7);
  await createTenant();
  const reply = await call("POST", "/upcall/v1/re-attach", { node_id: 7, register: node.register(7) });
  expect(reply.body).toEqual({ tenants: [{ id: TENANT, gen: 2, mode: "AttachedSingle" }] });
  const validated = await call("POST", "/upcall/v1/validate", { tenants: [{ id: TENANT, gen: 1 }, { id: TENANT, gen: 2 }] });
  expect(validated.body).toEqual({ tenants: [{ id: TENANT, valid: false }, { id: TENANT, valid: true }] });
});

test("everything is there again after a restart of the controller", async () => {
  const node = await pageserver(7);
  await createTenant();
  await controller.stop();
  await start();
  await eventually(async () => ((await call("GET", "/control/v1/node/7")).body as { availability: string }).availability === "Active", "node active");
  const described = (await call("GET", `/control/v1/tenant/${TENANT}`)).body as { shards: { node_attached: number }[] };
  expect(described.shards[0]?.node_attached).toBe(7);
  expect(node.locations.get(TENANT)).toMatchObject({ generation: 1 });
});

test("a silent pageserver's shards move to another, under a higher generation", async () => {
  const first = await pageserver(1);
  const second = await pageserver(2);
  const created = await createTenant();
  const [from, to] = created.shards[0]?.node_id === 1 ? [first, second] : [second, first];
  await from.stop();
  await eventually(() => (to.locations.get(TENANT)?.generation as number) > 1, "attached elsewhere");
  const described = (await call("GET", `/control/v1/tenant/${TENANT}`)).body as { shards: { node_attached: number }[] };
  expect(described.shards[0]?.node_attached).not.toBe(created.shards[0]?.node_id);
}, 20_000);

test("shards spread over the nodes and timelines are made on all of them", async () => {
  const nodes = [await pageserver(1), await pageserver(2)];
  const created = await createTenant({ shard_parameters: { count: 4, stripe_size: 2048 } });
  expect(created.shards.map((shard) => shard.shard_id)).toEqual(["0004", "0104", "0204", "0304"].map((suffix) => `${TENANT}-${suffix}`));
  expect(nodes.map((node) => node.locations.size)).toEqual([2, 2]);
  const timeline = await call("POST", `/v1/tenant/${TENANT}/timeline`, { new_timeline_id: TIMELINE, pg_version: 17 });
  expect(timeline.status).toBe(201);
  expect((timeline.body as { on: string }).on).toBe(`${TENANT}-0004`);
  expect(nodes.flatMap((node) => node.calls).filter((line) => line.startsWith("POST") && line.endsWith("/timeline"))).toHaveLength(4);
  expect((await call("GET", `/v1/tenant/${TENANT}/timeline?x=1`)).body).toEqual([{ tenant: `${TENANT}-0004`, query: "1" }]);
  expect((await call("DELETE", `/v1/tenant/${TENANT}/timeline/${TIMELINE}`)).status).toBe(202);
});

test("configuration: PUT replaces, PATCH keeps what is absent and unsets null", async () => {
  const node = await pageserver(1);
  await createTenant({ gc_horizon: 1, checkpoint_distance: 2 });
  await call("PATCH", "/v1/tenant/config", { tenant_id: TENANT, gc_horizon: null, pitr_interval: "1h" });
  expect(node.locations.get(TENANT)?.tenant_conf).toEqual({ checkpoint_distance: 2, pitr_interval: "1h" });
  await call("PUT", "/v1/tenant/config", { tenant_id: TENANT, gc_horizon: 5 });
  expect(node.locations.get(TENANT)?.tenant_conf).toEqual({ gc_horizon: 5 });
});

test("policies: a detached tenant is nowhere, a secondary where there is room", async () => {
  const nodes = [await pageserver(1), await pageserver(2)];
  await createTenant({ placement_policy: { Attached: 1 } });
  await eventually(() => nodes.every((node) => node.locations.has(TENANT)), "a secondary beside the attachment");
  expect(nodes.map((node) => node.locations.get(TENANT)?.mode).sort()).toEqual(["AttachedSingle", "Secondary"]);
  await call("PUT", `/control/v1/tenant/${TENANT}/policy`, { placement: "Detached" });
  await eventually(() => nodes.every((node) => !node.locations.has(TENANT)), "detached everywhere");
  await call("PUT", `/control/v1/tenant/${TENANT}/policy`, { placement: { Attached: 0 } });
  await eventually(() => nodes.some((node) => node.locations.get(TENANT)?.generation === 2), "attached again");
});

test("a refusing pageserver leaves the error where operators look, and is tried again", async () => {
  const node = await pageserver(1);
  node.failWith = 500;
  expect((await call("POST", "/v1/tenant", { new_tenant_id: TENANT })).status).toBe(503);
  const described = (await call("GET", `/control/v1/tenant/${TENANT}`)).body as { shards: { last_error: string }[] };
  expect(described.shards[0]?.last_error).toContain("refused");
  node.failWith = null;
  await eventually(() => node.locations.has(TENANT), "attached after all");
});

test("bad requests are refused with a reason", async () => {
  expect((await call("POST", "/v1/tenant", { new_tenant_id: "nonsense" })).status).toBe(400);
  expect((await call("POST", "/upcall/v1/re-attach", { node_id: 99 })).status).toBe(404);
  await pageserver(1);
  const other = new FakePageserver();
  pageservers.push(other);
  expect((await call("POST", "/control/v1/node", other.register(1, "other"))).status).toBe(409);
  await createTenant();
  expect((await call("DELETE", "/control/v1/node/1")).status).toBe(409);
  expect((await call("POST", "/v1/tenant", { new_tenant_id: TENANT, shard_parameters: { count: 2, stripe_size: 1 } })).status).toBe(409);
});

test("time travel: of a tenant that is attached nowhere, each shard it has ever had, on a pageserver that answers", async () => {
  const node = await pageserver(7);
  await createTenant();
  const moments = { travel_to: "2026-01-31T12:00:00Z", done_if_after: "2026-02-01T00:00:00Z" };
  const travel = (counts: number[]) => call("PUT", `/v1/tenant/${TENANT}/time_travel_remote_storage?${new URLSearchParams(moments)}`, { shard_counts: counts });
  expect((await travel([0])).status).toBe(409);
  expect((await call("PUT", `/control/v1/tenant/${TENANT}/policy`, { placement: "Detached" })).status).toBe(200);
  await eventually(() => node.locations.size === 0, "detached");
  await eventually(async () => (await travel([2, 0, 2])).status === 200, "travelled");
  expect(node.travels).toEqual([TENANT, `${TENANT}-0002`, `${TENANT}-0102`].map((id) => `${id} ${moments.travel_to} ${moments.done_if_after}`));
  node.failWith = 405;
  expect((await travel([0])).status).toBeGreaterThanOrEqual(400);
  node.failWith = null;
  expect((await travel([256])).status).toBe(400);
  expect((await call("PUT", `/v1/tenant/${TENANT}/time_travel_remote_storage`, { shard_counts: [0] })).status).toBe(400);
}, 20_000);
