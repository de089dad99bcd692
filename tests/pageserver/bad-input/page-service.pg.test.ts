/** What a pageserver may be sent over libpq, and must survive: each is an answer or an error, and everybody else is served on. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { lsnToString, parseLsn } from "../../../src/kit/lsn.ts";
import { tenantSettings } from "../../../src/pageserver/tenant/tenant-config.ts";
import { bytes, cstr, u32, u64, u8, zeros } from "../../conformance/bytes.ts";
import { errorFields, RawLibpq } from "../../conformance/raw-libpq.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const ROOT = "aa".repeat(16);
const LATEST = 0xffff_ffff_ffff_ffffn;
const PG_CLASS = bytes(u32(1663), u32(5), u32(1259), u8(0));
const WAIT_MS = 300;
const settings = tenantSettings({ pitr_interval: "0s", gc_horizon: 0, gc_period: "0s", compaction_period: "0s" });
const server = new TestPageserver({ tenantDefaults: { ...settings, timeline: { ...settings.timeline, waitLsnTimeoutMs: WAIT_MS } } });
let lastLsn: number;

beforeAll(async () => {
  await server.start();
  await server.attach(1);
  const created = await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: ROOT, pg_version: 17 });
  expect(created.status).toBe(201);
  lastLsn = parseLsn((created.json as { last_record_lsn: string }).last_record_lsn);
}, 30_000);
afterAll(() => server.remove());

async function session(): Promise<RawLibpq> {
  const { raw, frames } = await RawLibpq.session(server.running.pgPort, { user: "u", database: "d" });
  expect(frames.at(-1)?.tag).toBe("Z");
  return raw;
}

async function pagestream(timeline = ROOT, tenant = TENANT_ID): Promise<RawLibpq> {
  const raw = await session();
  raw.query(`pagestream_v3 ${tenant} ${timeline}`);
  await raw.expect("W");
  return raw;
}

interface At {
  readonly lsn?: bigint | number;
  readonly since?: bigint | number;
}

const getPage = (rel: Uint8Array, block: number, at: At = {}): Buffer => bytes(u8(2), u64(1), u64(at.lsn ?? LATEST), u64(at.since ?? 8), rel, u32(block));

/** "page", or the words of an error response. */
async function answer(raw: RawLibpq): Promise<string> {
  const body = await raw.expect("d");
  if (body[0] === 103) return body.toString("utf8", 25, body.length - 1);
  return body[0] === 102 ? "page" : `kind ${body[0]}`;
}

/** The connection still answers. */
async function stillServes(raw: RawLibpq): Promise<void> {
  raw.copyData(getPage(PG_CLASS, 0));
  expect(await answer(raw)).toBe("page");
}

test("relations, forks and segments that are not there: an error response each, the stream stays", async () => {
  const raw = await pagestream();
  const missing: [string, Uint8Array, string][] = [
    ["a relation", getPage(bytes(u32(1663), u32(5), u32(999_999), u8(0)), 0), "relation 1663/5/999999 does not exist"],
    ["a database", getPage(bytes(u32(1663), u32(77), u32(1259), u8(0)), 0), "does not exist"],
    ["a tablespace", getPage(bytes(u32(1), u32(5), u32(1259), u8(0)), 0), "does not exist"],
    ["relation number 0", getPage(bytes(u32(1663), u32(5), u32(0), u8(0)), 0), "relation number 0"],
    ["an SLRU segment", bytes(u8(4), u64(1), u64(LATEST), u64(8), u8(0), u32(0xffff)), ""],
  ];
  for (const fork of [3, 4, 7, 31, 32, 64, 255]) missing.push([`fork ${fork}`, getPage(bytes(u32(1663), u32(5), u32(1259), u8(fork)), 0), "does not exist"]);
  for (const [what, request, words] of missing) {
    raw.copyData(request);
    const said = await answer(raw);
    expect([what, said]).toEqual([what, expect.stringContaining(words)]);
    expect([what, said === "page"]).toEqual([what, false]);
    await stillServes(raw);
  }
  raw.close();
});

test("a block past the end is a page of zeros, whatever its number", async () => {
  const raw = await pagestream();
  for (const block of [5000, 0x7fff_ffff, 0xffff_fffe, 0xffff_ffff]) {
    raw.copyData(getPage(PG_CLASS, block));
    const body = await raw.expect("d");
    expect([block, body[0], body.subarray(-8192).equals(zeros(8192))]).toEqual([block, 102, true]);
  }
  await stillServes(raw);
  raw.close();
});

test("an LSN that has not come: an error that names both after the wait, and only that request waits", async () => {
  const raw = await pagestream();
  const other = await pagestream();
  const beyond = lastLsn + 0x10_0000;
  const startMs = performance.now();
  raw.copyData(getPage(PG_CLASS, 0, { since: beyond }));
  for (let i = 0; i < 5; i++) await stillServes(other);
  expect(performance.now() - startMs).toBeLessThan(10_000);
  const said = await answer(raw);
  expect(performance.now() - startMs).toBeGreaterThan(WAIT_MS * 0.9);
  expect(said).toContain(lsnToString(beyond));
  expect(said).toContain(lsnToString(lastLsn));
  await stillServes(raw);
  raw.close();
  other.close();
});

test("a client that leaves while its request waits takes the request with it", async () => {
  const raw = await pagestream();
  raw.copyData(getPage(PG_CLASS, 0, { since: lastLsn + 0x10_0000 }));
  await Bun.sleep(20);
  raw.close();
  const next = await pagestream();
  await stillServes(next);
  next.close();
});

test("LSNs that make no sense, and those before what is kept", async () => {
  const raw = await pagestream();
  const cases: [At, string][] = [
    [{ lsn: 0, since: 0 }, "invalid LSN"],
    [{ lsn: lastLsn - 8, since: lastLsn }, "lies before not_modified_since"],
    [{ lsn: 8, since: 8 }, "garbage collected"],
    [{ lsn: lastLsn - 0x10_0000, since: 8 }, "garbage collected"],
  ];
  for (const [at, words] of cases) {
    raw.copyData(getPage(PG_CLASS, 0, at));
    expect(await answer(raw)).toContain(words);
    await stillServes(raw);
  }
  raw.close();
});

test("LSNs no log can reach: refused, and the session goes on", async () => {
  for (const lsn of [0xffff_ffff_ffff_fffen, 0x8000_0000_0000_0000n, 0x20_0000_0000_0000n]) {
    const raw = await pagestream();
    raw.copyData(getPage(PG_CLASS, 0, { lsn, since: lsn }));
    const frame = await raw.frame();
    if (frame?.tag === "d") expect(frame.body[0]).toBe(103);
    else expect(frame?.tag).toBe("E");
    raw.message("c");
    await raw.untilReady();
    raw.query("set x = 1");
    expect((await raw.untilReady()).at(-1)?.tag).toBe("Z");
    raw.close();
  }
});

test("commands at LSNs before what is kept, beyond what there is and beyond any log: refused each, and the session goes on", async () => {
  const raw = await session();
  const lsns: [string, RegExp][] = [["0/0", /garbage collected/], ["0/8", /garbage collected/], [lsnToString(lastLsn + 0x10_0000), /waited/], ["FFFFFFFF/FFFFFFFF", /LSN/], ["200000/0", /LSN/], ["1F/FFFFFFFFF", /LSN/], ["-1/0", /LSN/]];
  for (const command of ["basebackup", "fullbasebackup", "fullbackup"]) {
    for (const [lsn, words] of lsns) {
      raw.query(`${command} ${TENANT_ID} ${ROOT} ${lsn}`);
      const frames = await raw.untilReady();
      expect([command, lsn, frames.map(({ tag }) => tag)]).toEqual([command, lsn, ["E", "Z"]]);
      expect([command, lsn, errorFields(frames[0].body).M]).toEqual([command, lsn, expect.stringMatching(words)]);
    }
  }
  server.log.expectWarn(/LSN lease refused/);
  for (const [lsn] of lsns) {
    raw.query(`lease lsn ${TENANT_ID} ${ROOT} ${lsn}`);
    const frames = await raw.untilReady();
    // A lease on what is gone, or not there yet, is a NULL; a text that is no LSN an error.
    const outcome = frames.map(({ tag }) => tag).join("");
    expect([lsn, outcome]).toEqual([lsn, expect.stringMatching(/^(E|TDC)Z$/)]);
    if (outcome === "TDCZ") expect([lsn, frames[1].body.readInt32BE(2)]).toEqual([lsn, /^0\/[08]$/.test(lsn) ? -1 : expect.any(Number)]);
  }
  raw.close();
  const other = await pagestream();
  await stillServes(other);
  other.close();
});

test("over HTTP: branches, leases and times at such LSNs, and shards that are not here", async () => {
  const base = `/v1/tenant/${TENANT_ID}/timeline/${ROOT}`;
  for (const lsn of ["0/8", lsnToString(lastLsn + 0x10_0000), "FFFFFFFF/FFFFFFFF", "200000/0", "x"]) {
    const branch = await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: "ee".repeat(16), ancestor_timeline_id: ROOT, ancestor_start_lsn: lsn });
    expect([lsn, "branch", branch.status]).toEqual([lsn, "branch", lsn === lsnToString(lastLsn + 0x10_0000) ? 503 : expect.any(Number)]);
    expect([lsn, branch.status >= 400 && branch.status !== 500]).toEqual([lsn, true]);
    const lease = await server.http("POST", `${base}/lsn_lease`, { lsn });
    expect([lsn, "lease", lease.status !== 500]).toEqual([lsn, "lease", true]);
  }
  expect((await server.http("GET", `/v1/tenant/${TENANT_ID}/timeline/${"ee".repeat(16)}`)).status).toBe(404);
  for (const shard of ["0001", "0102", "ff", "0200"]) {
    const reply = await server.http("GET", `/v1/tenant/${TENANT_ID}-${shard}/timeline/${ROOT}`);
    expect([shard, reply.status === 404 || reply.status === 400]).toEqual([shard, true]);
  }
});

test("a page of a shard that is not here: an error response, and those of the shard that is are served", async () => {
  const tenant = "5".repeat(32);
  const location = { mode: "AttachedSingle", generation: 1, shard_number: 0, shard_count: 2, shard_stripe_size: 1, tenant_conf: { gc_period: "0s", compaction_period: "0s" } };
  expect((await server.http("PUT", `/v1/tenant/${tenant}-0002/location_config`, location)).status).toBe(200);
  expect((await server.http("POST", `/v1/tenant/${tenant}-0002/timeline`, { new_timeline_id: ROOT, pg_version: 17 })).status).toBe(201);
  const raw = await pagestream(ROOT, tenant);
  const said = new Set<string>();
  for (let block = 0; block < 8; block++) {
    raw.copyData(getPage(PG_CLASS, block));
    said.add(await answer(raw));
  }
  expect([...said].filter((words) => words === "page").length).toBe(1);
  expect([...said].filter((words) => words !== "page")).toEqual([expect.stringContaining("found")]);
  raw.close();
});

test("requests that came before an unreadable one are answered", async () => {
  const raw = await pagestream();
  const copyData = (body: Uint8Array): Buffer => bytes(Buffer.from("d"), u32(body.length + 4), body);
  raw.write(bytes(copyData(getPage(PG_CLASS, 0)), copyData(getPage(PG_CLASS, 1)), copyData(bytes(u8(77), zeros(24)))));
  expect([await answer(raw), await answer(raw)]).toEqual(["page", "page"]);
  expect(errorFields(await raw.expect("E")).M).toContain("unknown kind 77");
  await raw.expect("Z");
  raw.close();
});

test("tenants and timelines nobody knows", async () => {
  for (const raw of [await pagestream("c".repeat(32)), await pagestream(ROOT, "d".repeat(32))]) {
    raw.copyData(getPage(PG_CLASS, 0));
    expect(await answer(raw)).toContain("was not found");
    raw.message("c");
    await raw.untilReady();
    raw.query(`pagestream_v3 ${TENANT_ID} ${ROOT}`);
    await raw.expect("W");
    await stillServes(raw);
    raw.close();
  }
  const raw = await session();
  for (const sql of ["pagestream_v3", `pagestream_v3 ${TENANT_ID}`, `pagestream_v3 ${TENANT_ID} x`, `pagestream_v4 ${TENANT_ID} ${ROOT}`, `lease lsn ${TENANT_ID} ${ROOT} zero`, "SELECT 1", "x".repeat(100_000), ";", "\u{1F600}"]) {
    raw.query(sql);
    expect([sql.slice(0, 40), (await raw.untilReady()).map(({ tag }) => tag)]).toEqual([sql.slice(0, 40), ["E", "Z"]]);
  }
  raw.close();
});

test("messages that are none: the connection ends with a FATAL or at once, others are served", async () => {
  const witness = await pagestream();
  const frame = (tag: string, length: number, body: Uint8Array = zeros(0)): Buffer => bytes(Buffer.from(tag, "latin1"), u32(length), body);
  const inSession: [string, Uint8Array][] = [
    ["a length below 4", frame("Q", 3)],
    ["a length of 4 GiB", frame("Q", 0xffff_ffff)],
    ["a length over the limit", frame("d", 0x7fff_ffff)],
    ["an unknown type", frame("\x01", 4)],
    ["a query without its end", frame("Q", 9, Buffer.from("abcde"))],
    ["bytes of another protocol", Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")],
  ];
  for (const [what, data] of inSession) {
    const raw = await session();
    raw.write(data);
    const frames = await raw.untilReady();
    expect([what, frames.map(({ tag }) => tag)]).toEqual([what, ["E"]]);
    expect(errorFields(frames[0].body).S).toBe("FATAL");
    raw.close();
    await stillServes(witness);
  }
  for (const [what, data] of [["a query in a stream", frame("Q", 10, cstr("set x"))], ["a password in a stream", frame("p", 5, u8(0))]] as const) {
    const raw = await pagestream();
    raw.write(data);
    expect([what, (await raw.untilReady()).map(({ tag }) => tag)]).toEqual([what, ["E"]]);
    raw.close();
    await stillServes(witness);
  }
  const failing = await pagestream();
  failing.message("f", cstr("no more"));
  expect((await failing.untilReady()).map(({ tag }) => tag)).toEqual(["E", "Z"]);
  failing.close();
  witness.close();
});

test("connections cut anywhere in a message, hundreds of them", async () => {
  const witness = await pagestream();
  const whole = bytes(Buffer.from("d"), u32(4 + 42), getPage(PG_CLASS, 0));
  for (let cut = 0; cut < 200; cut++) {
    const raw = cut % 2 === 0 ? await pagestream() : await RawLibpq.open(server.running.pgPort);
    raw.write(whole.subarray(0, cut % whole.length));
    raw.close();
  }
  await stillServes(witness);
  witness.close();
}, 30_000);
