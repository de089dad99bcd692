/** A cluster at work has the peer's metrics, with their types and labels, and what the work must move has moved. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import postgres from "postgres";
import { type Lsn, LSN_MAX, parseLsn } from "../../../src/kit/lsn.ts";
import { decodeResponse, encodeGetPage, encodeRelRequest } from "../../../src/pageserver/api/pagestream.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { PgClient } from "../../../src/wire/client.ts";
import { TestCluster } from "../../support/dev-cluster.ts";
import { BROKER, type ExpectedMetric, OF_EVERY_ROLE, PAGESERVER, SAFEKEEPER } from "./expected-metrics.ts";
import { parseExposition, type ScrapedFamily } from "./exposition.ts";

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await TestCluster.start({ pgVersion: 17 });
}, 180_000);
afterAll(async () => await cluster?.destroy(), 60_000);

const BRANCH = "b".repeat(32);
const ROOT = "c".repeat(32);
const connect = (): postgres.Sql => postgres({ host: "127.0.0.1", port: cluster.pgPort, user: "postgres", database: "postgres", max: 1, onnotice: () => {} });

async function ask(method: string, path: string, body?: unknown): Promise<unknown> {
  const { tenantId, ports } = cluster.cluster;
  const reply = await fetch(`http://127.0.0.1:${ports.pageserver.http}/v1/tenant/${tenantId}${path}`, { method, ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }) });
  const text = await reply.text();
  if (!reply.ok) throw new Error(`${method} ${path}: ${reply.status} ${text}`);
  return text === "" ? null : JSON.parse(text);
}

async function scrape(port: number): Promise<Map<string, ScrapedFamily>> {
  return parseExposition(await (await fetch(`http://127.0.0.1:${port}/metrics`)).text());
}

/** As a compute asks for pages: more at once than fit into one batch, and its size and existence. */
async function readPages(relNumber: number): Promise<void> {
  const { tenantId, ports, branches: [{ timelineId }] } = cluster.cluster;
  const { network, clock, random } = realPlatform();
  const client = await PgClient.connect(network, { address: { host: "127.0.0.1", port: ports.pageserver.pg }, parameters: { user: "test", database: "test" }, clock, random });
  const stream = await client.copyBoth(`pagestream_v3 ${tenantId} ${timelineId}`);
  const latest = { requestId: 1n, requestLsn: LSN_MAX, notModifiedSince: 8 };
  const rel = { spcOid: 1663, dbOid: 5, relNumber, fork: 0 };
  const nobody = { ...rel, relNumber: 999_999 };
  const requests = [encodeRelRequest("exists", latest, { rel: nobody, version: 3 }), encodeRelRequest("exists", latest, { rel, version: 3 }), encodeRelRequest("nblocks", latest, { rel, version: 3 }), ...Array.from({ length: 100 }, (_, block) => encodeGetPage(latest, { rel, block }, 3))];
  for (let round = 0; round < 2; round++) {
    for (const request of requests) stream.write(request);
    for (const _ of requests) decodeResponse((await stream.read()) as Uint8Array, 3);
  }
  client.destroy();
}

async function arrived(timeline: string, lsn: Lsn): Promise<void> {
  for (let attempt = 0; attempt < 600; attempt++) {
    if (parseLsn(((await ask("GET", timeline)) as { last_record_lsn: string }).last_record_lsn) >= lsn) return;
    await Bun.sleep(50);
  }
  throw new Error(`WAL to ${lsn} has not arrived`);
}

/** Writes, flushes, compacts, makes images, collects, evicts and reads again, branches and deletes. */
async function work(): Promise<void> {
  const { timelineId } = cluster.cluster.branches[0];
  const timeline = `/timeline/${timelineId}`;
  const sql = connect();
  await sql`create table t as select g as id, repeat(md5(g::text), 4) as v from generate_series(1, 20000) g`;
  for (let round = 0; round < 3; round++) {
    await sql`update t set v = ${`round ${round}`} where id % 3 = ${round}`;
    // A layer each time: only then there is something to merge.
    const [{ lsn }] = await sql`select pg_current_wal_flush_lsn()::text as lsn`;
    await arrived(timeline, parseLsn(lsn));
    await ask("PUT", `${timeline}/checkpoint?wait_until_uploaded=true`);
  }
  await ask("PUT", `${timeline}/compact?force_l0_compaction=true`);
  await ask("PUT", `${timeline}/checkpoint?force_image_layer_creation=true&wait_until_uploaded=true`);
  await ask("PUT", `${timeline}/do_gc`, { gc_horizon: 0 });
  const [{ relNumber }] = await sql`select pg_relation_filenode('t')::int as "relNumber"`;
  await sql.end({ timeout: 1 });
  const { historic_layers: layers } = (await ask("GET", `${timeline}/layer`)) as { historic_layers: { layer_file_name: string }[] };
  for (const { layer_file_name: name } of layers) await ask("DELETE", `${timeline}/layer/${name}`);
  // Another compute begins from a base backup, and its reads fetch what was evicted.
  await cluster.kill(cluster.compute);
  await cluster.startCompute();
  await readPages(relNumber);
  await ask("POST", "/timeline", { new_timeline_id: BRANCH, ancestor_timeline_id: timelineId });
  await ask("DELETE", `/timeline/${BRANCH}`);
  await ask("POST", "/timeline", { new_timeline_id: ROOT, pg_version: 17 });
  await ask("DELETE", `/timeline/${ROOT}`);
}

/** What is wrong with each. */
function faults(found: ReadonlyMap<string, ScrapedFamily>, expected: readonly ExpectedMetric[]): string[] {
  return expected.flatMap(({ name, type, labels, mustMove }) => {
    const family = found.get(name);
    if (family === undefined) return [`${name} is not there`];
    const all = [];
    if (family.type !== type) all.push(`${name} is a ${family.type}, not a ${type}`);
    const names = new Set(family.samples.map((sample) => Object.keys(sample.labels).filter((label) => label !== "le" || type !== "histogram").sort().join()));
    for (const those of names) if (those !== labels.join()) all.push(`${name} has the labels ${those || "(none)"}, not ${labels.join() || "(none)"}`);
    const counted = family.samples.filter((sample) => type !== "histogram" || sample.name === `${name}_count`);
    if (mustMove && !counted.some(({ value }) => value > 0)) all.push(`${name} has not moved`);
    return all;
  });
}

test("a pageserver that did all kinds of work", async () => {
  await work();
  const { ports } = cluster.cluster;
  const expected = [...PAGESERVER, ...OF_EVERY_ROLE];
  // Deletions are executed some time later, and logical sizes are counted when there is time.
  for (let attempt = 0; attempt < 60 && faults(await scrape(ports.pageserver.http), expected).length > 0; attempt++) await Bun.sleep(500);
  const found = await scrape(ports.pageserver.http);
  expect(faults(found, expected)).toEqual([]);
  expect(faults(found, [{ name: "pageserver_evictions", type: "gauge", labels: ["x"], mustMove: true }])).toHaveLength(2);
  // Nothing of those that were deleted is left.
  const isGone = (id: string | undefined): boolean => id === BRANCH || id === ROOT;
  expect([...found].filter(([, { samples }]) => samples.some(({ labels }) => isGone(labels.timeline_id))).map(([name]) => name)).toEqual([]);
}, 180_000);

test("safekeepers and the broker", async () => {
  const { ports } = cluster.cluster;
  expect(faults(await scrape(ports.safekeepers[0].http), [...SAFEKEEPER, ...OF_EVERY_ROLE])).toEqual([]);
  expect(faults(await scrape(ports.broker), [...BROKER, ...OF_EVERY_ROLE])).toEqual([]);
});
