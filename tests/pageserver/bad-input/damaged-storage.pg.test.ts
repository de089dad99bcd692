/**
 * Damaged and missing files, locally and in object storage, under a running pageserver with two tenants of a real
 * cluster: what is damaged is repaired or a typed error, everything else goes on, nothing is deleted.
 */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { cpSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { bytes, u32, u64, u8 } from "../../conformance/bytes.ts";
import { RawLibpq } from "../../conformance/raw-libpq.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

const OTHER_TENANT = "f".repeat(32);
const ROOT = "aa".repeat(16);
const SECOND = "bb".repeat(16);
const BRANCH = "cc".repeat(16);
const PG_CLASS = bytes(u32(1663), u32(5), u32(1259), u8(0));
const server = new TestPageserver();
const bucket = join(server.root, "bucket");
const saved = join(server.root, "saved");
let generation = 1;
let page: Buffer;

async function location(tenant: string): Promise<void> {
  const reply = await server.http("PUT", `/v1/tenant/${tenant}/location_config`, { mode: "AttachedSingle", generation, tenant_conf: { compaction_period: "0s", gc_period: "0s" } });
  expect(reply.status).toBe(200);
}

beforeAll(async () => {
  await server.start();
  for (const tenant of [TENANT_ID, OTHER_TENANT]) {
    await location(tenant);
    const created = await server.http("POST", `/v1/tenant/${tenant}/timeline`, { new_timeline_id: ROOT, pg_version: 17 });
    expect(created.status).toBe(201);
  }
  expect((await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: SECOND, pg_version: 17 })).status).toBe(201);
  expect((await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: BRANCH, ancestor_timeline_id: ROOT })).status).toBe(201);
  page = await getPage(TENANT_ID, ROOT);
  await server.stop();
  cpSync(bucket, saved, { recursive: true });
}, 60_000);
afterAll(() => server.remove());

/** Each test starts with the bucket as it was and an empty disk, under a new generation. */
beforeEach(async () => {
  await server.stop(false);
  server.wipe();
  rmSync(bucket, { recursive: true });
  cpSync(saved, bucket, { recursive: true });
  generation++;
});

async function ask(tenant: string, timeline: string): Promise<Buffer> {
  const { raw } = await RawLibpq.session(server.running.pgPort, { user: "u", database: "d" });
  raw.query(`pagestream_v3 ${tenant} ${timeline}`);
  await raw.expect("W");
  raw.copyData(u8(2), u64(1), u64(0xffff_ffff_ffff_ffffn), u64(8), PG_CLASS, u32(1));
  const body = await raw.expect("d");
  raw.close();
  return body;
}

async function getPage(tenant: string, timeline: string): Promise<Buffer> {
  const body = await ask(tenant, timeline);
  if (body[0] !== 102) throw new Error(body.toString("utf8", 25, body.length - 1));
  return body.subarray(-8192);
}

async function errorOf(tenant: string, timeline: string): Promise<string> {
  const body = await ask(tenant, timeline);
  return body[0] === 103 ? body.toString("utf8", 25, body.length - 1) : "a page";
}

function filesBelow(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: "utf8" }).filter((name) => statSync(join(directory, name)).isFile() && !name.startsWith(".uploads")).sort();
}

/** Object keys of a timeline's layers. */
function layersOf(tenant: string, timeline: string): string[] {
  return filesBelow(bucket).filter((key) => key.startsWith(`tenants/${tenant}/timelines/${timeline}/`) && key.includes("__"));
}

function localLayers(tenant: string, timeline: string): string[] {
  const directory = join(server.workDirectory, "tenants", tenant, "timelines", timeline);
  return readdirSync(directory).filter((name) => name.includes("__") && !name.endsWith("download")).map((name) => join(directory, name));
}

function flipBit(path: string, at: number): void {
  const content = readFileSync(path);
  content[at < 0 ? content.length + at : at] ^= 0x10;
  writeFileSync(path, content);
}

async function startAttached(): Promise<void> {
  await server.start();
  for (const tenant of [TENANT_ID, OTHER_TENANT]) await location(tenant);
}

/** Whatever was in the bucket before is there still: damage is never answered by deleting. */
function expectNothingDeleted(before: readonly string[], missing: readonly string[] = []): void {
  const now = new Set(filesBelow(bucket));
  expect(before.filter((key) => !now.has(key))).toEqual([...missing]);
}

/** The object of a local layer of TENANT_ID's ROOT. */
function objectOf(localPath: string): string {
  const name = localPath.slice(localPath.lastIndexOf("/") + 1).split("-v1-")[0];
  return join(bucket, layersOf(TENANT_ID, ROOT).find((key) => key.includes(name)) ?? "missing");
}

const LOCAL_DAMAGE: [string, (path: string) => void][] = [
  ["a flipped bit in the first block", (path) => flipBit(path, 40)],
  ["a flipped bit among the values", (path) => flipBit(path, Math.floor(statSync(path).size / 2))],
  ["a flipped bit in the checksums", (path) => flipBit(path, -3)],
  ["half of it", (path) => truncateSync(path, Math.floor(statSync(path).size / 2))],
  ["nothing of it", (path) => truncateSync(path, 0)],
  ["no file", (path) => rmSync(path)],
];

test.each(LOCAL_DAMAGE)("a local layer with %s is fetched again, and the page is right", async (what, damage) => {
  await startAttached();
  expect((await getPage(TENANT_ID, ROOT)).equals(page)).toBe(true);
  await server.stop();
  const before = filesBelow(bucket);
  const layers = localLayers(TENANT_ID, ROOT);
  expect(layers.length).toBeGreaterThan(0);
  for (const layer of layers) damage(layer);
  await startAttached();
  expect((await getPage(TENANT_ID, ROOT)).equals(page)).toBe(true);
  expect((await getPage(TENANT_ID, BRANCH)).equals(page)).toBe(true);
  // A block that nobody reads is found damaged by whoever reads it first.
  if (what === "a flipped bit among the values") return;
  for (const layer of layers) expect(readFileSync(layer).equals(readFileSync(objectOf(layer)))).toBe(true);
  expectNothingDeleted(before);
}, 30_000);

test("a local layer damaged under a running server is fetched again", async () => {
  await startAttached();
  await getPage(TENANT_ID, ROOT);
  await server.stop();
  await startAttached();
  for (const layer of localLayers(TENANT_ID, ROOT)) {
    const content = readFileSync(layer);
    for (let at = 8192; at < content.length - 8192; at += 4096) content[at] ^= 1;
    writeFileSync(layer, content);
  }
  const repaired = (): number => server.log.entries.filter(({ message }) => message.includes("damaged, fetching it again")).length;
  const before = repaired();
  expect((await getPage(TENANT_ID, ROOT)).equals(page)).toBe(true);
  expect(repaired()).toBeGreaterThan(before);
}, 30_000);

const BUCKET_DAMAGE: [string, (path: string) => void, RegExp][] = [
  ["a flipped bit in the first block", (path) => flipBit(path, 40), /checksum|first block|summary/],
  ["a flipped bit among the values", (path) => flipBit(path, Math.floor(statSync(path).size / 2)), /checksum/],
  ["half of it", (path) => truncateSync(path, Math.floor(statSync(path).size / 2)), /bytes arrived|too short/],
  ["a tail too many", (path) => writeFileSync(path, "x", { flag: "a" }), /longer than/],
  ["nothing of it", (path) => truncateSync(path, 0), /bytes arrived|too short/],
];

async function expectOthersServed(): Promise<void> {
  expect((await getPage(OTHER_TENANT, ROOT)).length).toBe(8192);
  expect((await getPage(TENANT_ID, SECOND)).length).toBe(8192);
}

test.each(BUCKET_DAMAGE)("a layer in the bucket with %s: a typed error for its timeline, the others go on", async (_what, damage, words) => {
  const layers = layersOf(TENANT_ID, ROOT);
  expect(layers.length).toBeGreaterThan(0);
  for (const layer of layers) damage(join(bucket, layer));
  const before = filesBelow(bucket);
  await startAttached();
  expect(await errorOf(TENANT_ID, ROOT)).toMatch(words);
  expect(await errorOf(TENANT_ID, BRANCH)).toMatch(words);
  await expectOthersServed();
  // It is the object that is bad, not our memory of it: once it is good again, so is the page.
  for (const layer of layers) writeFileSync(join(bucket, layer), readFileSync(join(saved, layer)));
  expect((await getPage(TENANT_ID, ROOT)).equals(page)).toBe(true);
  expectNothingDeleted(before);
}, 30_000);

test("a layer that is missing from the bucket: a typed error that names it", async () => {
  const before = filesBelow(bucket);
  const layers = layersOf(TENANT_ID, ROOT);
  for (const layer of layers) rmSync(join(bucket, layer));
  await startAttached();
  const said = await errorOf(TENANT_ID, ROOT);
  expect(said).toContain("is in index_part.json but not in object storage");
  await expectOthersServed();
  expectNothingDeleted(before, layers);
}, 30_000);

function indexOf(tenant: string, timeline: string): string {
  const keys = filesBelow(bucket).filter((key) => key.startsWith(`tenants/${tenant}/timelines/${timeline}/index_part.json`));
  return join(bucket, keys.sort().at(-1) ?? "");
}

function replaceIn(path: string, pattern: RegExp, by: string): void {
  const before = readFileSync(path, "utf8");
  const after = before.replace(pattern, by);
  expect(after).not.toBe(before);
  writeFileSync(path, after);
}

const INDEX_DAMAGE: [string, (path: string) => void, RegExp][] = [
  ["half of it", (path) => truncateSync(path, Math.floor(statSync(path).size / 2)), /index_part/],
  ["nothing of it", (path) => truncateSync(path, 0), /index_part/],
  ["a flipped bit", (path) => flipBit(path, Math.floor(statSync(path).size / 2)), /index_part/],
  ["a digit changed, and still JSON", (path) => replaceIn(path, /"file_size":\d/, '"file_size":9'), /checksum/],
  ["a newer version", (path) => writeFileSync(path, JSON.stringify({ ...(JSON.parse(readFileSync(path, "utf8").replace(/"strata_checked":true,|,"strata_crc32c":"\w+"/g, "")) as object), version: 99 })), /version 99|newer/],
  ["another kind of document", (path) => writeFileSync(path, "[1,2,3]"), /index_part/],
];

test.each(INDEX_DAMAGE)("an index_part with %s: its timeline and its branches are broken, the others go on", async (_what, damage, words) => {
  damage(indexOf(TENANT_ID, ROOT));
  const before = filesBelow(bucket);
  await startAttached();
  expect(await errorOf(TENANT_ID, ROOT)).toMatch(words);
  expect(await errorOf(TENANT_ID, BRANCH)).toContain("cannot be used");
  const status = await server.http("GET", `/v1/tenant/${TENANT_ID}/timeline/${ROOT}`);
  expect(status.status).toBe(503);
  // Nobody may put another timeline in its place.
  expect((await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: ROOT, pg_version: 17 })).status).toBe(409);
  await expectOthersServed();
  expect((await server.http("GET", `/v1/tenant/${TENANT_ID}`)).json).toMatchObject({ state: { slug: "Active" } });
  await server.stop();
  expectNothingDeleted(before);
}, 30_000);

test("a damaged location file keeps its tenant away and nobody else", async () => {
  await startAttached();
  await server.stop();
  const before = filesBelow(bucket);
  const directory = join(server.workDirectory, "tenants", TENANT_ID);
  const file = readdirSync(directory).find((name) => statSync(join(directory, name)).isFile());
  expect(file).toBeDefined();
  flipBit(join(directory, file ?? ""), 10);
  await server.start();
  expect((await server.http("GET", `/v1/tenant/${TENANT_ID}`)).status).toBe(404);
  expect((await getPage(OTHER_TENANT, ROOT)).length).toBe(8192);
  // Told again what it is to be, it is that.
  generation++;
  await location(TENANT_ID);
  expect((await getPage(TENANT_ID, ROOT)).equals(page)).toBe(true);
  expectNothingDeleted(before);
}, 30_000);

test("a second pageserver on the same directory is refused and disturbs nothing", async () => {
  await startAttached();
  const intruder = new TestPageserver({ workDirectory: server.workDirectory });
  await expect(intruder.start()).rejects.toMatchObject({ code: "directory-locked" });
  await intruder.remove();
  expect((await getPage(TENANT_ID, ROOT)).equals(page)).toBe(true);
}, 30_000);
