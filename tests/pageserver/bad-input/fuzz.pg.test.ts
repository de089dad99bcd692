/** Conversations and bodies with random damage: whatever comes, it is answered or refused, nothing is a bug of ours, and a good client is served all the time. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { tenantSettings } from "../../../src/pageserver/tenant/tenant-config.ts";
import { bytes, cstr, u32, u64, u8, zeros } from "../../conformance/bytes.ts";
import { RawLibpq } from "../../conformance/raw-libpq.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

// A busy machine may need a while.
setDefaultTimeout(120_000);

const ROOT = "aa".repeat(16);
const BOUND_MS = 6000;
const SEED = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));
const PG_CLASS = bytes(u32(1663), u32(5), u32(1259), u8(0));
const settings = tenantSettings({});
// Who has only said that no more comes may still wait for an LSN: here not for long.
const server = new TestPageserver({ tenantDefaults: { ...settings, timeline: { ...settings.timeline, waitLsnTimeoutMs: 200 } } });
let random = SEED;
/** Below `limit`, from the seed (mulberry32). */
function below(limit: number): number {
  random = (random + 0x6d2b79f5) | 0;
  let t = Math.imul(random ^ (random >>> 15), 1 | random);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * limit);
}
const pick = <T>(of: readonly T[]): T => of[below(of.length)] as T;

beforeAll(async () => {
  console.log(`FUZZ_SEED=${SEED}`);
  await server.start();
  await server.attach(1, { gc_period: "0s", compaction_period: "0s" });
  expect((await server.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: ROOT, pg_version: 17 })).status).toBe(201);
}, 60_000);
afterAll(() => server.remove());

function expectNoBugs(): void {
  expect(server.log.entries.filter(({ level }) => level === "error").map(({ message, fields }) => [message, String(fields.error)])).toEqual([]);
}

const message = (tag: string, ...body: readonly Uint8Array[]): Buffer => bytes(Buffer.from(tag, "latin1"), u32(bytes(...body).length + 4), ...body);
const startup = (): Buffer => {
  const body = bytes(u32(196_608), cstr("user"), cstr("u"), cstr("database"), cstr("d"), cstr(""));
  return bytes(u32(body.length + 4), body);
};
const header = bytes(u64(7), u64(0xffff_ffff_ffff_ffffn), u64(8));

/** Sound messages, in pieces that may be damaged one by one. */
function conversation(): Buffer[] {
  const requests = [bytes(u8(0), header, PG_CLASS), bytes(u8(1), header, PG_CLASS), bytes(u8(2), header, PG_CLASS, u32(1)), bytes(u8(3), header, u32(5)), bytes(u8(4), header, u8(1), u32(0))];
  const stream = [message("Q", cstr(`pagestream_v3 ${TENANT_ID} ${ROOT}`)), ...Array.from({ length: 1 + below(8) }, () => message("d", pick(requests))), message("c")];
  const others = [
    message("Q", cstr(`basebackup ${TENANT_ID} ${ROOT} --gzip`)), message("Q", cstr(`lease lsn ${TENANT_ID} ${ROOT} 0/1`)), message("Q", cstr("set x = 1")), message("P", cstr(""), cstr("set y"), zeros(2)),
    message("B", cstr(""), cstr(""), zeros(6)), message("E", cstr(""), u32(0)), message("S"), message("Q", cstr(`import wal ${TENANT_ID} ${"ab".repeat(16)} 0/1 0/2`)), message("f", cstr("no")), message("H"), message("X"),
  ];
  return [startup(), ...stream, ...Array.from({ length: below(4) }, () => pick(others))];
}

function damaged(piece: Buffer): Buffer {
  const copy = Buffer.from(piece);
  const at = below(copy.length);
  switch (below(8)) {
    case 0:
      copy[at] ^= 1 << below(8);
      return copy;
    case 1:
      copy[at] = pick([0, 0xff, 0x7f, 0x80, below(256)]);
      return copy;
    case 2:
      return copy.subarray(0, at);
    case 3:
      return bytes(copy.subarray(0, at), Buffer.alloc(1 + below(200), below(256)), copy.subarray(at));
    case 4:
      return bytes(copy, copy);
    case 5:
      if (copy.length >= 5) copy.writeUInt32BE(pick([0, 1, 3, 4, 5, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, below(100_000)]), copy.length > 4 ? 1 : 0);
      return copy;
    case 6:
      return Buffer.from(Array.from({ length: 1 + below(300) }, () => below(256)));
    default:
      return copy.reverse();
  }
}

async function attack(): Promise<void> {
  const raw = await RawLibpq.open(server.running.pgPort);
  const pieces = conversation();
  const hits = 1 + below(3);
  for (let hit = 0; hit < hits; hit++) {
    // The handshake seldom: behind it there is more.
    const at = below(10) === 0 ? 0 : 1 + below(pieces.length - 1);
    pieces[at] = damaged(pieces[at]);
  }
  const whole = bytes(...pieces);
  const cut = below(4) === 0 ? below(whole.length) : whole.length;
  for (let from = 0; from < cut; ) {
    const to = Math.min(cut, from + 1 + below(below(2) === 0 ? 20 : 2000));
    raw.write(whole.subarray(from, to));
    from = to;
    if (below(10) === 0) await Bun.sleep(0);
  }
  if (below(2) === 0) raw.end();
  await Bun.sleep(below(8));
  raw.close();
}

async function serves(): Promise<void> {
  const { raw } = await RawLibpq.session(server.running.pgPort, { user: "u", database: "d" });
  raw.query(`pagestream_v3 ${TENANT_ID} ${ROOT}`);
  await raw.expect("W");
  raw.copyData(u8(2), header, PG_CLASS, u32(1));
  const body = await raw.expect("d");
  expect([body[0], body.length]).toEqual([102, 1 + 24 + 17 + 8192]);
  raw.close();
}

test("libpq: thousands of damaged conversations", async () => {
  const endMs = performance.now() + BOUND_MS;
  let attacks = 0;
  while (performance.now() < endMs) {
    await Promise.all(Array.from({ length: 10 }, attack));
    attacks += 10;
    await serves();
  }
  expect(attacks).toBeGreaterThan(100);
  expectNoBugs();
  // Whoever has gone leaves nothing behind.
  const live = async (): Promise<number> => {
    const text = await (await fetch(`http://127.0.0.1:${server.running.httpPort}/metrics`)).text();
    const count = (what: string): number => Number(new RegExp(`pageserver_live_connections_${what}\\{[^}]*\\} (\\d+)`).exec(text)?.[1]);
    return count("started") - count("finished");
  };
  for (let look = 0; look < 200 && (await live()) > 0; look++) await Bun.sleep(50);
  expect(await live()).toBe(0);
});

interface Operation {
  readonly parameters?: readonly { readonly name: string; readonly in: string }[];
}

const ODD = [null, true, false, -1, 0, 1.5, 1e308, 2 ** 53, "", "x", "0/1", "FFFFFFFF/FFFFFFFF", "a".repeat(10_000), [], {}, [[]], { a: { b: [1] } }, "\u0000", "日本", "../../etc", "-1s", "9999999 years", TENANT_ID, ROOT];
const BODIES: readonly unknown[] = [
  { mode: "AttachedSingle", generation: 1, secondary_conf: null, shard_number: 0, shard_count: 0, shard_stripe_size: 0, tenant_conf: { gc_period: "0s", compaction_period: "0s" } },
  { tenant_id: "b".repeat(32), gc_horizon: 1, pitr_interval: "1 day", eviction_policy: { kind: "NoEviction" }, timeline_get_throttle: { task_kinds: [], initial: 0, refill_interval: "1s", refill_amount: 1, max: 1 } },
  { new_timeline_id: "cd".repeat(16), ancestor_timeline_id: ROOT, ancestor_start_lsn: "0/1", pg_version: 17 }, { state: "Archived" }, { lsn: "0/1" }, { evict_bytes: 0, eviction_order: { type: "RelativeAccessed", args: { highest_layer_count_loses_first: true } } },
  [{ name: "x", actions: "off" }],
];

/** A copy with some of its values replaced, left out, or with company. */
function twisted(value: unknown): unknown {
  if (below(6) === 0) return pick(ODD);
  if (Array.isArray(value)) return below(5) === 0 ? [...value, pick(ODD)] : value.map(twisted);
  if (typeof value !== "object" || value === null) return below(4) === 0 ? pick(ODD) : value;
  const entries = Object.entries(value).filter(() => below(8) !== 0).map(([name, inner]) => [name, below(3) === 0 ? twisted(inner) : inner] as const);
  if (below(6) === 0) entries.push([pick(["__proto__", "constructor", "", "x".repeat(1000), "tenant_id"]), pick(ODD)]);
  return Object.fromEntries(entries);
}

const VALUES: Readonly<Record<string, readonly string[]>> = {
  // Never the good tenant itself where something could be done to it: its neighbours in name.
  tenant: ["b".repeat(32), `${"b".repeat(32)}-0102`, `${TENANT_ID}-0001`, "x", "%00", "0".repeat(31), "..%2f..", "z".repeat(32), "a".repeat(5000)],
  timeline: [ROOT, "cd".repeat(16), "x", "%ff", "0".repeat(32), "-"],
  other: ["", "x", "1", "-1", "true", "false", "0/1", "9".repeat(15), "2020-01-01T00:00:00Z", "2020-13-45T99:99:99Z", "%F0%9F%98%80", "FFFFFFFF/FFFFFFFF", "a".repeat(2000)],
};
const valueFor = (name: string): string => pick(VALUES[name.startsWith("tenant") ? "tenant" : name.startsWith("timeline") ? "timeline" : "other"] ?? [""]);

function bodyText(): string {
  const text = JSON.stringify(twisted(pick(BODIES))) ?? "";
  return below(5) === 0 ? text.slice(0, below(text.length + 1)) : text;
}

test("HTTP: every route with damaged paths, queries and bodies", async () => {
  const base = `http://127.0.0.1:${server.running.httpPort}`;
  const { paths } = (await (await fetch(`${base}/v1/openapi.json`)).json()) as { paths: Record<string, Record<string, Operation>> };
  const operations = Object.entries(paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), parameters: operation.parameters ?? [] })));
  // Profiles take their time, and metrics are long.
  const asked = operations.filter(({ path }) => !path.startsWith("/profile") && path !== "/metrics");
  const one = async (): Promise<void> => {
    const { path, method, parameters } = pick(asked);
    const query = parameters.filter((parameter) => parameter.in === "query" && below(3) > 0).map(({ name }) => `${name}=${valueFor(name)}`);
    const url = `${base}${path.replace(/\{(\w+)\}/g, (_, name: string) => valueFor(name))}${query.length === 0 ? "" : `?${query.join("&")}`}`;
    const init: RequestInit = { method, headers: below(4) === 0 ? { "content-type": pick(["text/plain", "application/json; charset=x", ""]) } : { "content-type": "application/json" } };
    if (method !== "GET" && below(8) > 0) init.body = bodyText();
    const reply = await fetch(url, { ...init, signal: AbortSignal.timeout(60_000) });
    const text = await reply.text();
    const cell = `${method} ${url.slice(base.length, base.length + 200)} ${typeof init.body === "string" ? init.body.slice(0, 300) : ""}`;
    expect([cell, reply.status, reply.status === 500 ? text : ""]).toEqual([cell, expect.any(Number), ""]);
    if (reply.status >= 400 && reply.headers.get("content-type")?.startsWith("application/json") === true) expect([cell, typeof (JSON.parse(text) as { msg: unknown }).msg]).toEqual([cell, "string"]);
  };
  const endMs = performance.now() + BOUND_MS;
  let requests = 0;
  while (performance.now() < endMs) {
    await Promise.all(Array.from({ length: 10 }, one));
    requests += 10;
    await serves();
  }
  expect(requests).toBeGreaterThan(100);
  expect(Object.prototype).not.toHaveProperty("a");
  expectNoBugs();
});
