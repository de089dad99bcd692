/** Root timelines begin from the archive that the bootstrap leaves in object storage: the same cluster again, for shards as well. */
import { afterEach, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { RealFiles } from "../../../src/platform/real/files.ts";
import { packInitdb } from "../../../src/pageserver/import/initdb-archive.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

setDefaultTimeout(60_000);

const ROOT = "aa".repeat(16);
const OTHER = "bb".repeat(16);
const ARCHIVE = "initdb.tar.zst";
const PRESERVED = "initdb-preserved.tar.zst";
const path = `/v1/tenant/${TENANT_ID}/timeline`;
const files = new RealFiles();

interface Info {
  readonly last_record_lsn: string;
  readonly prev_record_lsn: string;
  readonly remote_consistent_lsn: string;
}

/** Of the one initdb that is run. */
let archived: Uint8Array;
let before: Info;
let was: Uint8Array;
let server: TestPageserver;
beforeAll(async () => {
  server = new TestPageserver();
  await server.start();
  expect((await server.attach(1)).status).toBe(200);
  before = await created(ROOT, { pg_version: 17 });
  archived = readFileSync(join(bucket(TENANT_ID, ROOT), ARCHIVE));
  was = await content(ROOT, before.last_record_lsn);
  await server.remove();
});
beforeEach(async () => {
  server = new TestPageserver({ testingMode: true });
  await server.start();
  expect((await server.attach(1)).status).toBe(200);
});
afterEach(() => server.remove());

const bucket = (tenant: string, timelineId: string): string => join(server.root, "bucket/tenants", tenant, "timelines", timelineId);
const objects = (timelineId: string, tenant = TENANT_ID): string[] => (existsSync(bucket(tenant, timelineId)) ? readdirSync(bucket(tenant, timelineId)).sort() : []);
const leftovers = (): string[] => readdirSync(server.workDirectory).filter((name) => name.startsWith("import-"));
const create = (timelineId: string, more: Record<string, unknown> = {}) => server.http("POST", path, { new_timeline_id: timelineId, ...more });

async function created(timelineId: string, more: Record<string, unknown> = {}): Promise<Info> {
  const reply = await create(timelineId, more);
  expect([reply.status, reply.json]).toEqual([201, reply.json]);
  return reply.json as Info;
}

/** All that is left of a timeline: the archive. */
function leave(timelineId: string, name = ARCHIVE): void {
  mkdirSync(bucket(TENANT_ID, timelineId), { recursive: true });
  writeFileSync(join(bucket(TENANT_ID, timelineId), name), archived);
}

/** Everything of a timeline, as one archive. */
async function content(timelineId: string, lsn: string): Promise<Uint8Array> {
  const client = await server.client();
  const stream = await client.copyOut(`fullbackup ${TENANT_ID} ${timelineId} ${lsn}`);
  const pieces: Uint8Array[] = [];
  for (let piece = await stream.read(); piece !== null; piece = await stream.read()) pieces.push(piece);
  client.destroy();
  return Buffer.concat(pieces);
}

/** Modification times are of the backup, not of the content. */
async function expectEqualContent(ours: Uint8Array, theirs: Uint8Array): Promise<void> {
  const names = async (bytes: Uint8Array) => {
    const entries = await new Bun.Archive(bytes as Uint8Array<ArrayBuffer>).files();
    return Object.fromEntries(await Promise.all([...entries].map(async ([name, file]) => [name, Bun.hash(await file.arrayBuffer()).toString(16)] as const)));
  };
  const found = await names(ours);
  expect(Object.keys(found).length).toBeGreaterThan(700);
  expect(found).toEqual(await names(theirs));
}

describe("initdb archive of a timeline", () => {
  test("a timeline of which nothing else is left begins again: the same key space at the same LSN", async () => {
    expect(archived.length).toBeLessThan(8 * 1024 * 1024);
    leave(ROOT);
    const after = await created(ROOT, { existing_initdb_timeline_id: ROOT });
    expect([after.last_record_lsn, after.prev_record_lsn, after.remote_consistent_lsn]).toEqual([before.last_record_lsn, before.prev_record_lsn, before.last_record_lsn]);
    await expectEqualContent(await content(ROOT, after.last_record_lsn), was);
    expect(readFileSync(join(bucket(TENANT_ID, ROOT), ARCHIVE)).equals(archived)).toBe(true);
    expect(leftovers()).toEqual([]);
  });

  test("another timeline begins from it, and gets an archive of its own", async () => {
    leave(ROOT);
    const second = await created(OTHER, { existing_initdb_timeline_id: ROOT, pg_version: 17 });
    expect(second.last_record_lsn).toBe(before.last_record_lsn);
    expect(readFileSync(join(bucket(TENANT_ID, OTHER), ARCHIVE)).equals(archived)).toBe(true);
  });

  test("it goes with the timeline; a preserved one stays, and timelines can be made from it", async () => {
    leave(ROOT);
    await created(ROOT);
    expect((await server.http("POST", `${path}/${OTHER}/preserve_initdb_archive`)).status).toBe(404);
    expect((await server.http("POST", `${path}/${ROOT}/preserve_initdb_archive`)).status).toBe(200);
    expect((await server.http("DELETE", `${path}/${ROOT}`)).status).toBe(202);
    expect(objects(ROOT)).toEqual([PRESERVED]);
    // A start finds a prefix that holds nothing else.
    await server.stop();
    await server.start();
    expect((await server.http("GET", path)).json).toEqual([]);
    await created(ROOT, { existing_initdb_timeline_id: ROOT });
    expect(objects(ROOT)).toContain(ARCHIVE);
    expect(readFileSync(join(bucket(TENANT_ID, ROOT), ARCHIVE)).equals(archived)).toBe(true);
  });

  test("what cannot be used is refused, each in its own words, and nothing is left behind", async () => {
    const code = async (more: Record<string, unknown>): Promise<unknown> => {
      const reply = await fetch(`http://127.0.0.1:${server.running.httpPort}${path}`, { method: "POST", body: JSON.stringify({ new_timeline_id: OTHER, ...more }), headers: { "content-type": "application/json" } });
      await reply.text();
      return [reply.status, reply.headers.get("x-error-code")];
    };
    expect(await code({ existing_initdb_timeline_id: ROOT })).toEqual([404, "initdb-archive-not-found"]);
    expect(await code({ existing_initdb_timeline_id: "../../etc" })).toEqual([400, expect.any(String)]);
    leave(ROOT);
    expect(await code({ existing_initdb_timeline_id: ROOT, pg_version: 15 })).toEqual([400, "wrong-version"]);
    expect(await code({ existing_initdb_timeline_id: ROOT, ancestor_timeline_id: ROOT })).toEqual([400, "bad-timeline-create"]);
    const object = join(bucket(TENANT_ID, ROOT), ARCHIVE);
    writeFileSync(object, archived.subarray(0, archived.length >> 1));
    expect(await code({ existing_initdb_timeline_id: ROOT })).toEqual([500, "bad-initdb-archive"]);
    const unrelated = join(server.root, "unrelated");
    mkdirSync(unrelated);
    writeFileSync(object, await packInitdb(files, unrelated));
    expect(await code({ existing_initdb_timeline_id: ROOT })).toEqual([500, "bad-initdb-archive"]);
    expect([objects(OTHER), leftovers(), (await server.http("GET", path)).json]).toEqual([[], [], []]);
  });

  test("a creation that was cut short goes on from the archive it left, also when nobody says that there is one: never over it", async () => {
    leave(ROOT);
    expect((await create(ROOT, { pg_version: 16 })).status).toBe(409);
    const after = await created(ROOT, { pg_version: 17 });
    expect(after.last_record_lsn).toBe(before.last_record_lsn);
    expect(readFileSync(join(bucket(TENANT_ID, ROOT), ARCHIVE)).equals(archived)).toBe(true);
  });

  test("a creation that fails leaves the archive and nothing else; nobody gets a half-made timeline meanwhile", async () => {
    leave(ROOT);
    expect((await server.http("PUT", "/v1/failpoints", [{ name: "flush-frozen", actions: "sleep(60000)" }])).status).toBe(200);
    const making = create(ROOT, { existing_initdb_timeline_id: ROOT });
    for (let tries = 0; tries < 200 && (await server.http("GET", `${path}/${ROOT}`)).status === 404; tries++) await Bun.sleep(50);
    expect((await create(ROOT, { existing_initdb_timeline_id: ROOT })).status).toBe(429);
    expect((await server.http("DELETE", `${path}/${ROOT}`)).status).toBe(409);
    // The shard is taken away while the content waits to be flushed.
    expect((await server.http("PUT", `/v1/tenant/${TENANT_ID}/location_config`, { mode: "Detached", tenant_conf: {} })).status).toBe(200);
    expect((await making).status).toBeGreaterThanOrEqual(400);
    expect(objects(ROOT)).toEqual([ARCHIVE]);
    expect((await server.http("PUT", "/v1/failpoints", [{ name: "flush-frozen", actions: "off" }])).status).toBe(200);
    expect((await server.attach(3)).status).toBe(200);
    await created(ROOT, { existing_initdb_timeline_id: ROOT });
    expect(readFileSync(join(bucket(TENANT_ID, ROOT), ARCHIVE)).equals(archived)).toBe(true);
  });

  test("a creation that fails anywhere leaves no timeline: before the archive nothing, after it the archive alone", async () => {
    const failing = async (name: string, more: Record<string, unknown>): Promise<number> => {
      expect((await server.http("PUT", "/v1/failpoints", [{ name, actions: "return" }])).status).toBe(200);
      const { status } = await create(ROOT, more);
      expect((await server.http("PUT", "/v1/failpoints", [{ name, actions: "off" }])).status).toBe(200);
      expect((await server.http("GET", path)).json).toEqual([]);
      return status;
    };
    expect(await failing("before-initdb-upload", { pg_version: 17 })).toBeGreaterThanOrEqual(500);
    expect(objects(ROOT)).toEqual([]);
    leave(ROOT);
    expect(await failing("before-checkpoint-new-timeline", {})).toBeGreaterThanOrEqual(500);
    expect([objects(ROOT), leftovers()]).toEqual([[ARCHIVE], []]);
  });

  test("the shards of a tenant begin from one cluster: the archive of shard zero", async () => {
    const tenant = "cd".repeat(16);
    const shard = (number: number): string => `${tenant}-0${number}02`;
    for (const number of [0, 1]) {
      expect((await server.http("PUT", `/v1/tenant/${shard(number)}/location_config`, { mode: "AttachedSingle", generation: 1, shard_number: number, shard_count: 2, shard_stripe_size: 16, tenant_conf: {} })).status).toBe(200);
    }
    mkdirSync(bucket(tenant, ROOT), { recursive: true });
    writeFileSync(join(bucket(tenant, ROOT), ARCHIVE), archived);
    const createOn = (number: number, more: Record<string, unknown> = {}) => server.http("POST", `/v1/tenant/${shard(number)}/timeline`, { new_timeline_id: ROOT, ...more });
    expect((await createOn(1, { pg_version: 17 })).status).toBe(400);
    const infos = [await createOn(0, { pg_version: 17 }), await createOn(1, { existing_initdb_timeline_id: ROOT })];
    expect(infos.map(({ status, json }) => [status, (json as Info).last_record_lsn])).toEqual([[201, before.last_record_lsn], [201, before.last_record_lsn]]);
    expect([objects(ROOT, tenant), objects(ROOT, shard(1)).length > 1]).toEqual([[ARCHIVE], true]);
    expect((await server.http("DELETE", `/v1/tenant/${shard(1)}/timeline/${ROOT}`)).status).toBe(202);
    expect([objects(ROOT, tenant), objects(ROOT, shard(1))]).toEqual([[], []]);
  });
});
