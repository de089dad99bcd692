/** Clients that do not behave, over real sockets: the pageserver gives each what it is due, others are served as ever, and a stop waits for nobody. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { parseLsn } from "../../../src/kit/lsn.ts";
import { bytes, u32, u64, u8 } from "../../conformance/bytes.ts";
import { RawLibpq } from "../../conformance/raw-libpq.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const ROOT = "aa".repeat(16);
const SHARDED = "5".repeat(32);
const LATEST = 0xffff_ffff_ffff_ffffn;
const PG_CLASS = bytes(u32(1663), u32(5), u32(1259), u8(0));
const server = new TestPageserver();
let lastLsn: number;

async function attachAndCreate(tenant: string, location: Record<string, unknown>, body: Record<string, unknown>): Promise<string> {
  expect((await server.http("PUT", `/v1/tenant/${tenant}/location_config`, { mode: "AttachedSingle", generation: 1, tenant_conf: { gc_period: "0s", compaction_period: "0s" }, ...location })).status).toBe(200);
  const created = await server.http("POST", `/v1/tenant/${tenant}/timeline`, { new_timeline_id: ROOT, pg_version: 17, ...body });
  expect([created.status, created.json]).toEqual([201, expect.anything()]);
  return (created.json as { last_record_lsn: string }).last_record_lsn;
}

beforeAll(async () => {
  await server.start();
  lastLsn = parseLsn(await attachAndCreate(TENANT_ID, {}, {}));
}, 60_000);
afterAll(() => server.remove());

async function pagestream(tenant = TENANT_ID): Promise<RawLibpq> {
  const { raw } = await RawLibpq.session(server.running.pgPort, { user: "u", database: "d" });
  raw.query(`pagestream_v3 ${tenant} ${ROOT}`);
  await raw.expect("W");
  return raw;
}

const getPage = (block: number, at: { readonly id?: bigint; readonly lsn?: bigint; readonly since?: number } = {}): Buffer => bytes(u8(2), u64(at.id ?? 1n), u64(at.lsn ?? LATEST), u64(at.since ?? 8), PG_CLASS, u32(block));
const copyData = (body: Uint8Array): Buffer => bytes(Buffer.from("d"), u32(body.length + 4), body);

async function answer(raw: RawLibpq): Promise<{ readonly id: bigint; readonly page: Buffer | string }> {
  const body = await raw.expect("d");
  return { id: body.readBigUInt64BE(1), page: body[0] === 102 ? body.subarray(-8192) : body.toString("utf8", 25, body.length - 1) };
}

async function serves(raw: RawLibpq): Promise<void> {
  raw.copyData(getPage(0));
  expect((await answer(raw)).page).toHaveLength(8192);
}

test("who sends and says that no more comes gets all answers, then the end", async () => {
  const raw = await pagestream();
  for (let id = 1n; id <= 100n; id++) raw.copyData(getPage(Number(id % 4n), { id }));
  raw.end();
  for (let id = 1n; id <= 100n; id++) expect((await answer(raw)).id).toBe(id);
  const rest = await raw.untilReady();
  expect(rest.filter(({ tag }) => tag === "d")).toEqual([]);
  const deadlineMs = performance.now() + 10_000;
  while (!raw.isEnded && performance.now() < deadlineMs) await Bun.sleep(20);
  expect(raw.isEnded).toBe(true);
  raw.close();
});

test("who asks on and takes nothing is not read any further: memory stays, others are served; what it takes later is whole and in order", async () => {
  const witness = await pagestream();
  const raw = await pagestream();
  raw.pause();
  Bun.gc(true);
  const before = process.memoryUsage().rss;
  const requests = 30_000n;
  const parts: Buffer[] = [];
  for (let id = 1n; id <= requests; id++) parts.push(copyData(getPage(Number(id % 8n), { id })));
  raw.write(Buffer.concat(parts));
  for (let look = 0; look < 20; look++) {
    await Bun.sleep(50);
    await serves(witness);
  }
  // All answers together are 240 MiB.
  expect((process.memoryUsage().rss - before) / 1024 ** 2).toBeLessThan(120);
  raw.resume();
  for (let id = 1n; id <= 2000n; id++) expect((await answer(raw)).id).toBe(id);
  raw.close();
  await serves(witness);
  witness.close();
});

test("a request that comes byte by byte is a request", async () => {
  const raw = await pagestream();
  for (const byte of copyData(getPage(1, { id: 9n }))) {
    raw.write(Uint8Array.of(byte));
    await Bun.sleep(1);
  }
  expect((await answer(raw)).id).toBe(9n);
  raw.close();
});

test("requests of replicas: at their LSN, at one that has not come yet for a page known not to change until then", async () => {
  const raw = await pagestream();
  raw.copyData(getPage(1));
  const { page } = await answer(raw);
  for (const lsn of [BigInt(lastLsn), BigInt(lastLsn + 8), BigInt(lastLsn + 0x1000_0000)]) {
    raw.copyData(getPage(1, { lsn }));
    expect((await answer(raw)).page).toEqual(page);
    raw.copyData(getPage(1, { lsn, since: lastLsn }));
    expect((await answer(raw)).page).toEqual(page);
  }
  raw.close();
});

test("several shards of a tenant over one connection: each page comes from the shard that has it", async () => {
  const sharded = { shard_count: 2, shard_stripe_size: 1 };
  await attachAndCreate(`${SHARDED}-0002`, { shard_number: 0, ...sharded }, {});
  const alone = await pagestream(SHARDED);
  const wanted = Array.from({ length: 12 }, (_, block) => block);
  for (const block of wanted) alone.copyData(getPage(block, { id: BigInt(block) }));
  const missing: number[] = [];
  for (const block of wanted) if (typeof (await answer(alone)).page === "string") missing.push(block);
  expect(missing.length).toBeGreaterThan(0);
  await attachAndCreate(`${SHARDED}-0102`, { shard_number: 1, ...sharded }, { existing_initdb_timeline_id: ROOT });
  for (const block of wanted) alone.copyData(getPage(block, { id: BigInt(block) }));
  for (const block of wanted) {
    const { id, page } = await answer(alone);
    expect([id, page.length]).toEqual([BigInt(block), 8192]);
    // Heap pages of 8 KiB, layout 4: those of the catalog, not zeros.
    expect([block, (page as Buffer).readUInt16LE(18)]).toEqual([block, 8192 | 4]);
  }
  alone.close();
});

test("a stop ends streams that wait, that take nothing, and backups midway, in a few seconds; the next start serves as before", async () => {
  const idle = await pagestream();
  const waiting = await pagestream();
  waiting.copyData(getPage(0, { since: lastLsn + 0x10_0000 }));
  const deaf = await pagestream();
  deaf.pause();
  deaf.write(Buffer.concat(Array.from({ length: 5000 }, (_, i) => copyData(getPage(i % 8)))));
  const { raw: backup } = await RawLibpq.session(server.running.pgPort, { user: "u", database: "d" });
  backup.query(`fullbackup ${TENANT_ID} ${ROOT}`);
  backup.pause();
  const busy = await pagestream();
  busy.write(Buffer.concat(Array.from({ length: 2000 }, (_, i) => copyData(getPage(i % 8, { id: BigInt(i) })))));
  await Bun.sleep(200);
  const startMs = performance.now();
  await server.stop();
  expect(performance.now() - startMs).toBeLessThan(20_000);
  // What was answered is whole and in order; then comes the word that it stops.
  const frames = await busy.untilReady();
  const answers = frames.filter(({ tag }) => tag === "d");
  answers.forEach(({ body }, index) => expect(body.readBigUInt64BE(1)).toBe(BigInt(index)));
  const told = [idle, waiting].map(async (raw) => (await raw.untilReady()).map(({ tag, body }) => `${tag}${body.toString("latin1").includes("57P01") ? " 57P01" : ""}`));
  for (const tags of await Promise.all(told)) expect(tags).toEqual(["E 57P01"]);
  for (const raw of [idle, waiting, deaf, backup, busy]) raw.close();
  await server.start();
  const again = await pagestream();
  await serves(again);
  again.close();
});
