import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

const OTHER = "f".repeat(32);
const TIMELINE = "aa".repeat(16);

describe("tenants", () => {
  const server = new TestPageserver();
  beforeAll(() => server.start());
  afterAll(() => server.remove());
  const put = (id: string, body: Record<string, unknown>) => server.http("PUT", `/v1/tenant/${id}/location_config`, { tenant_conf: {}, ...body });

  test("generations only rise; the same one again changes configuration only", async () => {
    expect((await put(TENANT_ID, { mode: "AttachedSingle" })).status).toBe(400);
    expect((await put(TENANT_ID, { mode: "AttachedSingle", generation: 5, tenant_conf: { gc_period: "10 minutes" } })).status).toBe(200);
    expect((await put(TENANT_ID, { mode: "AttachedSingle", generation: 4 })).status).toBe(409);
    expect((await put(TENANT_ID, { mode: "AttachedSingle", generation: 5, tenant_conf: { gc_period: "often" } })).status).toBe(400);
    expect((await put(TENANT_ID, { mode: "AttachedSingle", generation: 6 })).status).toBe(200);
    const { json } = await server.http("GET", `/v1/location_config/${TENANT_ID}`);
    expect(json).toMatchObject({ mode: "AttachedSingle", generation: 6 });
  });

  test("PATCH of the configuration: null removes, absent stays", async () => {
    await server.http("PUT", "/v1/tenant/config", { tenant_id: TENANT_ID, checkpoint_distance: 1_000_000, pitr_interval: "1 day" });
    await server.http("PATCH", "/v1/tenant/config", { tenant_id: TENANT_ID, pitr_interval: null, gc_horizon: 7 });
    const { json } = await server.http("GET", `/v1/tenant/${TENANT_ID}/config`);
    expect(json).toMatchObject({ tenant_specific_overrides: { checkpoint_distance: 1_000_000, gc_horizon: 7 }, effective_config: { checkpoint_distance: 1_000_000, gc_horizon: 7, pitr_interval: "7days" } });
    expect((json as { tenant_specific_overrides: object }).tenant_specific_overrides).not.toHaveProperty("pitr_interval");
  });

  test("locations survive a restart; detaching forgets the tenant", async () => {
    await put(OTHER, { mode: "Secondary", secondary_conf: { warm: true } });
    await server.stop();
    await server.start();
    const listed = (await server.http("GET", "/v1/location_config")).json as { tenant_shards: [string, { mode: string; generation: number | null }][] };
    expect(listed.tenant_shards.map(([id, { mode, generation }]) => [id, mode, generation]).sort()).toEqual([[TENANT_ID, "AttachedSingle", 6], [OTHER, "Secondary", null]]);
    await put(OTHER, { mode: "Detached" });
    expect((await server.http("GET", `/v1/tenant/${OTHER}`)).status).toBe(404);
    expect(readdirSync(join(server.workDirectory, "tenants"))).toEqual([TENANT_ID]);
  });

  test("a damaged index breaks its timeline alone, and nothing of it is deleted", async () => {
    const directory = join(server.root, "bucket", "tenants", OTHER, "timelines", TIMELINE);
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, "index_part.json-00000001"), "{ not json");
    expect((await put(OTHER, { mode: "AttachedSingle", generation: 2 })).status).toBe(200);
    const reply = await server.http("GET", `/v1/tenant/${OTHER}/timeline/${TIMELINE}`);
    expect([reply.status, JSON.stringify(reply.json)]).toEqual([503, expect.stringContaining("cannot be used")]);
    expect((await server.http("GET", `/v1/tenant/${TENANT_ID}`)).status).toBe(200);
    expect(readFileSync(join(directory, "index_part.json-00000001"), "utf8")).toBe("{ not json");
    expect(server.log.entries.some((entry) => entry.level === "error" && entry.message.includes("cannot be loaded"))).toBe(true);
  });

  test("a damaged local location is left alone; the pageserver starts", async () => {
    await server.stop();
    const path = join(server.workDirectory, "tenants", TENANT_ID, "config-v1");
    writeFileSync(path, "mode = ");
    await server.start();
    expect((await server.http("GET", `/v1/tenant/${TENANT_ID}`)).status).toBe(404);
    expect((await server.http("GET", `/v1/tenant/${OTHER}`)).status).toBe(200);
  });

  test("a second pageserver on the directory is refused", async () => {
    const second = new TestPageserver({ workDirectory: server.workDirectory });
    await expect(second.start()).rejects.toMatchObject({ code: "directory-locked" });
    await second.remove();
  });
});
