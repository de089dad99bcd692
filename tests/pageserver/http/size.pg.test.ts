/** Sizes and times over HTTP, of a tenant with a real cluster in it. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { parseLsn } from "../../../src/kit/lsn.ts";
import { syntheticSizeSchema } from "../../../src/pageserver/api/size.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

const ROOT = "aa".repeat(16);
const BRANCH = "bb".repeat(16);
const TENANT = `/v1/tenant/${TENANT_ID}`;

const server = new TestPageserver();
let lastRecordLsn = "";
let logicalSizeBytes = 0;

beforeAll(async () => {
  await server.start();
  expect((await server.attach(1, { pitr_interval: "0s" })).status).toBe(200);
  const { status, json } = await server.http("POST", `${TENANT}/timeline`, { new_timeline_id: ROOT, pg_version: 16 });
  expect(status).toBe(201);
  ({ last_record_lsn: lastRecordLsn, current_logical_size: logicalSizeBytes } = json as { last_record_lsn: string; current_logical_size: number });
}, 60_000);
afterAll(() => server.remove());

async function syntheticSize(query = "") {
  const { status, json } = await server.http("GET", `${TENANT}/synthetic_size${query}`);
  expect(status).toBe(200);
  return syntheticSizeSchema.parse(json);
}

async function metric(name: string): Promise<number[]> {
  const text = await (await fetch(`http://127.0.0.1:${server.running.httpPort}/metrics`)).text();
  return text.split("\n").filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `)).map((line) => Number(line.split(" ").at(-1)));
}

test("synthetic size: one snapshot; a branch adds nothing until it is written to; a lease adds nothing either", async () => {
  const before = await syntheticSize();
  expect(before.size).toBe(logicalSizeBytes);
  // initdb's LSN is also the last: a timeline that is all start.
  expect(before.inputs.segments.map(({ kind, segment }) => [kind, segment.size])).toEqual([["BranchStart", logicalSizeBytes], ["BranchEnd", null]]);
  expect((await server.http("POST", `${TENANT}/timeline`, { new_timeline_id: BRANCH, ancestor_timeline_id: ROOT })).status).toBe(201);
  const after = await syntheticSize();
  expect(after.size).toBe(logicalSizeBytes);
  expect(after.inputs.timeline_inputs.map(({ ancestor_id, ancestor_lsn }) => [ancestor_id, ancestor_lsn])).toEqual([[null, "0/0"], [ROOT, lastRecordLsn]]);
  expect((await metric("pageserver_tenant_synthetic_cached_size_bytes"))).toEqual([logicalSizeBytes]);
});

test("inputs only, a retention of the caller's, and only of shard zero", async () => {
  expect(await syntheticSize("?inputs_only=true")).toMatchObject({ size: null, segment_sizes: null });
  expect((await syntheticSize("?retention_period=8")).inputs.timeline_inputs[0].retention_param_cutoff).not.toBeNull();
  expect((await server.http("GET", `/v1/tenant/${TENANT_ID}-0102/synthetic_size`)).status).toBe(400);
  expect((await server.http("GET", `/v1/tenant/${"f".repeat(32)}/synthetic_size`)).status).toBe(404);
});

test("after a restart the logical size is counted again, and is the same incrementally and relation by relation", async () => {
  await server.stop();
  await server.start();
  const path = `${TENANT}/timeline/${ROOT}?include-non-incremental-logical-size=true&force-await-initial-logical-size=true`;
  expect((await server.http("GET", path)).json).toMatchObject({
    current_logical_size: logicalSizeBytes, current_logical_size_is_accurate: true, current_logical_size_non_incremental: logicalSizeBytes,
  });
  expect(await metric("pageserver_current_logical_size")).toContain(logicalSizeBytes);
  expect(await metric("pageserver_last_record_lsn")).toEqual([parseLsn(lastRecordLsn), parseLsn(lastRecordLsn)]);
  expect(await metric("pageserver_tenant_manager_slots")).toEqual([1, 0, 0]);
});

test("times of LSNs: none before the first commit, on shard zero only", async () => {
  const path = `${TENANT}/timeline/${ROOT}`;
  expect((await server.http("GET", `${path}/get_timestamp_of_lsn?lsn=${lastRecordLsn}`)).status).toBe(412);
  expect((await server.http("GET", `/v1/tenant/${TENANT_ID}-0102/timeline/${ROOT}/get_timestamp_of_lsn?lsn=${lastRecordLsn}`)).status).toBe(400);
  const found = (await server.http("GET", `${path}/get_lsn_by_timestamp?timestamp=2020-01-01T00:00:00Z&with_lease=true`)).json as { lsn: string; kind: string; valid_until: string };
  expect(found.kind).toBe("nodata");
  expect(Date.parse(found.valid_until) - Date.now()).toBeLessThan(70_000);
  expect((await server.http("GET", `${path}/get_lsn_by_timestamp?timestamp=yesterday`)).status).toBe(400);
});
