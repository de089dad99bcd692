/** The load generators, as programs, against a pageserver of this process. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { TENANT_ID, TestPageserver } from "../support/test-pageserver.ts";

setDefaultTimeout(120_000);

const MAIN = join(import.meta.dir, "../../src/main.ts");
const TIMELINE = "aa".repeat(16);
const server = new TestPageserver();

beforeAll(async () => {
  await server.start();
  expect((await server.attach(1)).status).toBe(200);
  expect((await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: TIMELINE, pg_version: 17 })).status).toBe(201);
});
afterAll(() => server.remove());

interface Total {
  readonly request_count: number;
  readonly missed: number;
  readonly latency_mean: string;
  readonly latency_percentiles: Readonly<Record<string, string>>;
}

async function bench(...args: string[]): Promise<{ code: number; total: Total | null; stderr: string }> {
  const { httpPort, pgPort } = server.running;
  const ends = [`--mgmt-api-endpoint=http://127.0.0.1:${httpPort}`, `--page-service-connstring=postgres://bench@127.0.0.1:${pgPort}`];
  const child = Bun.spawn([process.execPath, MAIN, "bench", ...args, ...ends], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  return { code, total: stdout === "" ? null : (JSON.parse(stdout) as { total: Total }).total, stderr };
}

test("pages of all relations, several in flight on several connections; a flame graph of it", async () => {
  const profile = join(server.root, "load.svg");
  const { code, total, stderr } = await bench("getpage-latest-lsn", "--runtime", "2s", "--num-clients", "2", "--queue-depth", "4", "--profile", profile);
  expect([code, stderr]).toEqual([0, expect.stringContaining("RPS: ")]);
  expect(total?.request_count).toBeGreaterThan(50);
  expect(Object.keys(total?.latency_percentiles ?? {})).toEqual(["p50", "p95", "p99", "p99.9", "p99.99"]);
  expect(readFileSync(profile, "utf8")).toContain("<svg");
});

test("at a rate: not more, and what is late is missed", async () => {
  const { code, total } = await bench("getpage-latest-lsn", "--runtime=2s", "--per-client-rate=20", "--req-latest-probability=0.5", `${TENANT_ID}/${TIMELINE}`);
  expect(code).toBe(0);
  expect(total?.request_count).toBeGreaterThan(0);
  expect((total?.request_count ?? 0) + (total?.missed ?? 0)).toBeLessThanOrEqual(60);
});

test("base backups, compressed or not", async () => {
  const { code, total } = await bench("basebackup", "--runtime=2s", "--gzip-probability=0.5");
  expect(code).toBe(0);
  expect(total?.request_count).toBeGreaterThan(0);
  expect(total?.latency_mean).toMatch(/\d/);
});

test("what is wrong is said, with exit code 1 or 2", async () => {
  const unknown = await bench("basebackup", `${TENANT_ID}/${"bb".repeat(16)}`);
  expect([unknown.code, unknown.stderr]).toEqual([1, expect.stringContaining("was not found")]);
  const wrong = await bench("getpage-latest-lsn", "--req-latest-probability=2");
  expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining("not a probability")]);
  const none = await bench("nothing");
  expect([none.code, none.stderr]).toEqual([2, expect.stringContaining("unknown load")]);
});

test("layers and keys over HTTP: those in memory, those in files, and every page of the catalogs", async () => {
  const timeline = `/v1/tenant/${TENANT_ID}/timeline/${TIMELINE}`;
  const { json } = await server.http("GET", `${timeline}/layer`);
  const map = json as { in_memory_layers: unknown[]; historic_layers: { kind: string; lsn_start: string; remote: boolean; access_stats: { visible: boolean } }[] };
  expect(map.in_memory_layers).toEqual([]);
  expect(map.historic_layers).toEqual(expect.arrayContaining([expect.objectContaining({ kind: "Delta", l0: true, remote: false, access_stats: expect.objectContaining({ visible: true }) })]));
  const space = (await server.http("GET", `${timeline}/keyspace`)).json as { keys: [string, string][]; sparse_keys: [string, string][]; at_lsn: string };
  expect(space.keys.length).toBeGreaterThan(500);
  expect(space.sparse_keys.length).toBe(2);
  expect([...space.keys].sort((a, b) => (a[0] < b[0] ? -1 : 1))).toEqual(space.keys);
  expect((await server.http("GET", `${timeline}/keyspace?at_lsn=0/1`)).status).toBe(400);
});
