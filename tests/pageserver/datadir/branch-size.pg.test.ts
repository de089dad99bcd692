import { afterAll, beforeAll, expect, test } from "bun:test";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

const ROOT = "aa".repeat(16);
const BRANCH = "bb".repeat(16);
const server = new TestPageserver();
beforeAll(async () => {
  await server.start();
  await server.attach(1);
}, 60_000);
afterAll(() => server.remove());

test("a branch at its parent's end knows its size without counting, and it is the one that counting finds", async () => {
  const path = `/v1/tenant/${TENANT_ID}/timeline`;
  expect((await server.http("POST", path, { new_timeline_id: ROOT, pg_version: 17 })).status).toBe(201);
  const made = await server.http("POST", path, { new_timeline_id: BRANCH, ancestor_timeline_id: ROOT });
  expect(made.json).toMatchObject({ current_logical_size_is_accurate: true });
  const counted = (await server.http("GET", `${path}/${BRANCH}?include-non-incremental-logical-size=true`)).json as Record<string, number>;
  expect(counted.current_logical_size_non_incremental).toBeGreaterThan(1_000_000);
  expect((made.json as Record<string, number>).current_logical_size).toBe(counted.current_logical_size_non_incremental ?? 0);
}, 60_000);
