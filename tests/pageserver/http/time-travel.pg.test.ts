/** A tenant whose objects were deleted, taken back in time over HTTP: attached again, it answers with the same pages. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { LSN_MAX } from "../../../src/kit/lsn.ts";
import { decodeResponse, encodeGetPage } from "../../../src/pageserver/api/pagestream.ts";
import { S3TestServer } from "../../support/s3-server.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

// A busy machine may need a while.
setDefaultTimeout(120_000);

const ROOT = "aa".repeat(16);
const BRANCH = "bb".repeat(16);
const TENANT = `/v1/tenant/${TENANT_ID}`;
const PG_CLASS = { spcOid: 1663, dbOid: 5, relNumber: 1259, fork: 0 };
const s3 = new S3TestServer();
s3.stored.versioning = "enabled";
const server = new TestPageserver({ remoteStorage: { kind: "s3", bucket: s3.bucket, region: s3.region, endpoint: s3.endpoint, credentials: s3.credentials } });
const travel = (to: string, doneIfAfter: string, tenant = TENANT) => server.http("PUT", `${tenant}/time_travel_remote_storage?travel_to=${encodeURIComponent(to)}&done_if_after=${encodeURIComponent(doneIfAfter)}`);
const detach = () => server.http("PUT", `${TENANT}/location_config`, { mode: "Detached", tenant_conf: {} });

/** Later than all that was, and earlier than all that will be. */
async function moment(): Promise<string> {
  await Bun.sleep(10);
  const text = new Date().toISOString();
  await Bun.sleep(10);
  return text;
}

async function pages(timeline: string): Promise<string[]> {
  const client = await server.client();
  const stream = await client.copyBoth(`pagestream_v3 ${TENANT_ID} ${timeline}`);
  const found: string[] = [];
  for (let block = 0; block < 5; block++) {
    stream.write(encodeGetPage({ requestId: 1n, requestLsn: LSN_MAX, notModifiedSince: 8 }, { rel: PG_CLASS, block }, 3));
    found.push(Buffer.from(decodeResponse((await stream.read()) as Uint8Array, 3).body).toString("hex"));
  }
  client.destroy();
  return found;
}

beforeAll(async () => {
  await server.start();
  expect((await server.attach(1)).status).toBe(200);
  expect((await server.http("POST", `${TENANT}/timeline`, { new_timeline_id: ROOT, pg_version: 17 })).status).toBe(201);
});
afterAll(async () => {
  await server.remove();
  s3.stop();
});

test("bad times and tenants that are here are refused, and so is a storage without versions", async () => {
  const now = new Date().toISOString();
  expect((await travel(now, new Date().toISOString())).json).toMatchObject({ msg: expect.stringContaining("detach it first") as unknown });
  const elsewhere = `/v1/tenant/${"ee".repeat(16)}`;
  const statusOf = async (to: string, doneIfAfter: string) => (await travel(to, doneIfAfter, elsewhere)).status;
  for (const bad of ["", "yesterday", "2026-01-01", "2026-01-01T00:00:00", "2026-02-30T00:00:00Z", "2026-01-01T00:00:00+02:00"]) {
    expect([bad, await statusOf(bad, now), await statusOf("2020-01-01T00:00:00Z", bad)]).toEqual([bad, 400, 400]);
  }
  expect(await statusOf(now, "2020-01-01T00:00:00Z")).toBe(400);
  expect(await statusOf("2999-01-01T00:00:00Z", "2999-01-02T00:00:00Z")).toBe(400);
  expect((await server.http("PUT", `${elsewhere}/time_travel_remote_storage?travel_to=2020-01-01T00:00:00Z`)).status).toBe(400);
  expect((await travel(now, now, "/v1/tenant/nonsense")).status).toBe(400);
  expect(await statusOf("2020-01-01T00:00:00.123456789Z", now)).toBe(200);
  const local = new TestPageserver();
  await local.start();
  const reply = await local.http("PUT", `${TENANT}/time_travel_remote_storage?travel_to=2020-01-01T00:00:00Z&done_if_after=2020-01-01T00:00:00Z`);
  expect(reply).toMatchObject({ status: 400, json: { msg: expect.stringContaining("time travel is not available with a local directory") as unknown } });
  await local.remove();
});

test("deleted, taken back, attached: the pages are those of then, and what came later is gone", async () => {
  const before = await pages(ROOT);
  const then = await moment();
  expect((await server.http("POST", `${TENANT}/timeline`, { new_timeline_id: BRANCH, ancestor_timeline_id: ROOT })).status).toBe(201);
  expect((await server.http("DELETE", TENANT)).status).toBe(200);
  expect([...s3.objects.keys()]).toEqual([]);
  const doneIfAfter = await moment();

  // Ten attempts are made; the first ones fail at each point.
  s3.failures.push(503, null, 503, null, null, 503);
  expect(await travel(then, doneIfAfter)).toEqual({ status: 200, json: null });
  expect(s3.failures).toEqual([]);
  expect((await server.attach(2)).status).toBe(200);
  expect((await server.http("GET", TENANT)).json).toMatchObject({ timelines: [ROOT] });
  expect(await pages(ROOT)).toEqual(before);
  expect((await travel(then, doneIfAfter)).status).toBe(400);

  // Repeated, it leaves alone what has been dealt with.
  expect((await detach()).status).toBe(200);
  const objects = new Map(s3.objects);
  expect((await travel(then, doneIfAfter)).status).toBe(200);
  expect(new Map(s3.objects)).toEqual(objects);
});

test("a secondary counts as here; a shard brings along what was written before the split", async () => {
  expect((await server.http("PUT", `${TENANT}/location_config`, { mode: "Secondary", secondary_conf: { warm: false }, tenant_conf: {} })).status).toBe(200);
  const then = await moment();
  const [key] = [...s3.objects.keys()].filter((one) => one.includes("/timelines/"));
  s3.stored.delete(key);
  const doneIfAfter = await moment();
  expect((await travel(then, doneIfAfter)).status).toBe(400);
  expect((await detach()).status).toBe(200);
  expect((await travel(then, doneIfAfter, `${TENANT}-0102`)).status).toBe(200);
  expect(s3.objects.has(key)).toBe(false);
  expect((await travel(then, doneIfAfter, `${TENANT}-0002`)).status).toBe(200);
  expect(s3.objects.has(key)).toBe(true);
});
