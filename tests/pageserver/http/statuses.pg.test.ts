/** Statuses that clients of the peer tell apart, and answers in its form. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { formatTimestamp, fromPostgresTimestamp, parseTimestamp, toPostgresTimestamp } from "../../../src/pageserver/http/timestamps.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const ROOT = "aa".repeat(16);
const BRANCH = "bb".repeat(16);
const TENANT = `/v1/tenant/${TENANT_ID}`;
const server = new TestPageserver({ testingMode: true });
beforeAll(async () => {
  server.log.expectWarn(/testing mode/);
  await server.start();
  await server.attach(1, { gc_period: "0s", compaction_period: "0s" });
});
afterAll(() => server.remove());

const create = (body: Record<string, unknown>) => server.http("POST", `${TENANT}/timeline`, body);
const failpoint = (name: string, actions: string) => server.http("PUT", "/v1/failpoints", [{ name, actions }]);

test("a timeline that is being made: asked for again it is 429, one that is there is told as the first time, one of another origin is 409", async () => {
  expect((await failpoint("before-checkpoint-new-timeline", "pause")).status).toBe(200);
  const first = create({ new_timeline_id: ROOT, pg_version: 17 });
  const deadlineMs = performance.now() + 30_000;
  while (!server.log.entries.some(({ message }) => message === "failpoint hit") && performance.now() < deadlineMs) await Bun.sleep(20);
  const again = await create({ new_timeline_id: ROOT, pg_version: 17 });
  expect([again.status, again.json]).toEqual([429, { msg: expect.stringContaining(ROOT) }]);
  await failpoint("before-checkpoint-new-timeline", "off");
  expect((await first).status).toBe(201);
  expect(await create({ new_timeline_id: ROOT, pg_version: 17 })).toEqual(await first);
  expect((await create({ new_timeline_id: ROOT, pg_version: 16 })).status).toBe(409);
  expect((await create({ new_timeline_id: BRANCH, ancestor_timeline_id: ROOT })).status).toBe(201);
});

test("no branch from before its ancestor's history: 406", async () => {
  expect((await create({ new_timeline_id: "cc".repeat(16), ancestor_timeline_id: ROOT, ancestor_start_lsn: "0/8" })).status).toBe(406);
});

test("DELETE says 404 of a timeline that is gone, and 412 of one that has branches or whose tenant is not here", async () => {
  expect((await server.http("DELETE", `${TENANT}/timeline/${ROOT}`)).status).toBe(412);
  const elsewhere = await server.http("DELETE", `/v1/tenant/${"f".repeat(32)}/timeline/${ROOT}`);
  expect([elsewhere.status, elsewhere.json]).toEqual([412, { msg: expect.stringContaining("not here") }]);
  expect((await server.http("DELETE", `${TENANT}/timeline/${"dd".repeat(16)}`)).status).toBe(404);
  expect((await server.http("GET", `${TENANT}/timeline/${ROOT}`)).status).toBe(200);
});

test("a tenant tells its physical size by itself, and not among others", async () => {
  const { current_physical_size: sizeBytes } = (await server.http("GET", TENANT)).json as { current_physical_size: number };
  const timeline = (await server.http("GET", `${TENANT}/timeline/${ROOT}`)).json as { current_physical_size: number };
  expect(sizeBytes).toBe(timeline.current_physical_size);
  expect(sizeBytes).toBeGreaterThan(1_000_000);
  expect(((await server.http("GET", "/v1/tenant")).json as { current_physical_size: unknown }[])[0].current_physical_size).toBeNull();
});

test("times are RFC 3339 in UTC, and nothing else", async () => {
  const ask = (timestamp: string) => server.http("GET", `${TENANT}/timeline/${ROOT}/get_lsn_by_timestamp?timestamp=${encodeURIComponent(timestamp)}`);
  for (const good of ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00.123456Z", "2020-02-29T23:59:59.1Z"]) expect([good, (await ask(good)).status]).toEqual([good, 200]);
  for (const bad of ["2020", "1", "2020-01-01", "2020-01-01T00:00:00", "2020-01-01 00:00:00Z", "2020-01-01T00:00:00+02:00", "2021-02-29T00:00:00Z", "Jan 1 2020", ""]) expect([bad, (await ask(bad)).status]).toEqual([bad, 400]);
});

test("times keep their microseconds, both ways", () => {
  for (const [text, micros] of [["2000-01-01T00:00:00Z", 0n], ["2024-05-06T07:08:09.123456Z", 768_294_489_123_456n], ["1999-12-31T23:59:59.999999Z", -1n], ["2024-05-06T07:08:09.120Z", 768_294_489_120_000n]] as const) {
    expect(toPostgresTimestamp(parseTimestamp(text))).toBe(micros);
    expect(formatTimestamp(fromPostgresTimestamp(micros))).toBe(text);
  }
  expect(parseTimestamp("1970-01-01T00:00:00.1234567Z")).toBe(123_456n);
});

test("a tenant with lazy_slru_download gets base backups without SLRU segments, which come one by one", async () => {
  const names = async (command: string): Promise<string[]> => {
    const client = await server.client();
    const copy = await client.copyOut(command);
    const parts: Uint8Array[] = [];
    for (let part = await copy.read(); part !== null; part = await copy.read()) parts.push(part);
    await client.close();
    const process = Bun.spawn(["tar", "-t"], { stdin: new Blob([Buffer.concat(parts) as Uint8Array<ArrayBuffer>]), stdout: "pipe", stderr: "ignore" });
    return (await new Response(process.stdout).text()).split("\n");
  };
  const slrus = (all: string[]): string[] => all.filter((name) => /^pg_(xact|multixact\/\w+)\/[0-9A-F]{4}$/.test(name));
  const patched = `basebackup ${TENANT_ID} ${ROOT}`;
  expect(slrus(await names(patched)).length).toBe(3);
  expect((await server.http("PATCH", "/v1/tenant/config", { tenant_id: TENANT_ID, lazy_slru_download: true })).status).toBe(200);
  const lazy = await names(patched);
  expect(slrus(lazy)).toEqual([]);
  expect(lazy).toContain("pg_xact/");
  expect(slrus(await names(`fullbackup ${TENANT_ID} ${ROOT}`)).length).toBe(3);
  expect(slrus(await names(`fullbasebackup ${TENANT_ID} ${ROOT}`)).length).toBe(3);
});
