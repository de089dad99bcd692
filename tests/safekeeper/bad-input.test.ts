/**
 * What a safekeeper does with what it cannot use, over real sockets: a typed error for who sent it, one line in the log that says
 * which tenant and timeline it was about, the connection closed, and nothing else disturbed.
 */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Claims, generateTokenKeys, signToken } from "../../src/http/auth.ts";
import { crc32c } from "../../src/kit/crc32c.ts";
import { lsnToString } from "../../src/kit/lsn.ts";
import type { LogEntry, RecordingLogger } from "../../src/observability/recording-logger.ts";
import { CONNECTION_TIMEOUTS, SAFEKEEPER_DEFAULTS, type SafekeeperConfig } from "../../src/safekeeper/config.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import { u32, u64, zeros } from "../conformance/bytes.ts";
import { errorFields, RawLibpq } from "../conformance/raw-libpq.ts";
import { testLogger } from "../support/test-logger.ts";
import { platform, ProposerDriver, type Target } from "./support/driver.ts";
import { MIB, SampleWal } from "./support/sample-wal.ts";

const TENANT = "1".repeat(32);
const TIMELINE = "2".repeat(32);
const OTHER = "3".repeat(32);
const START = 5 * MIB + 3 * 8192 + 1000;
const IDS = { tenantId: TENANT, timelineId: TIMELINE };

let directory: string;
let log: RecordingLogger;
let running: RunningSafekeeper | null = null;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-bad-input-"));
  log = testLogger();
});
afterEach(async () => {
  await running?.stop();
  running = null;
  rmSync(directory, { recursive: true, force: true });
});

async function start(over: Partial<SafekeeperConfig> = {}): Promise<void> {
  const anyPort = { host: "127.0.0.1", port: 0 };
  running = await startSafekeeper({ ...SAFEKEEPER_DEFAULTS, dataDirectory: join(directory, "data"), nodeId: 1, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: null, ...over }, { platform, log });
}

const port = (): number => running?.pgPort ?? 0;
const target = (over: Partial<Target> = {}): Target => ({ port: port(), ...IDS, ...over });
const status = async (timelineId = TIMELINE): Promise<Record<string, unknown>> => (await (await fetch(`http://127.0.0.1:${running?.httpPort}/v1/tenant/${TENANT}/timeline/${timelineId}`)).json()) as Record<string, unknown>;

/** A timeline with WAL, all of it committed. */
async function pushed(bytes = 20_000, dataBytes?: number): Promise<{ wal: SampleWal; proposer: ProposerDriver }> {
  const wal = new SampleWal(START).growTo(START + bytes, dataBytes);
  const proposer = await ProposerDriver.connect(target());
  await proposer.pushNew(wal, 1);
  return { wal, proposer };
}

function session(options: { ids?: { tenantId: string; timelineId: string } | null; password?: string; extra?: string } = {}) {
  const { ids = IDS, extra = "" } = options;
  const parameters: Record<string, string> = { user: "test", database: "replication", application_name: "raw" };
  if (ids !== null) parameters.options = `-c tenant_id=${ids.tenantId} timeline_id=${ids.timelineId}${extra}`;
  return RawLibpq.session(port(), parameters, options.password);
}

/** A session in the COPY that `command` begins. */
async function inCopy(command: string, extra?: string): Promise<RawLibpq> {
  const { raw } = await session(extra === undefined ? {} : { extra });
  raw.query(command);
  await raw.expect("W");
  return raw;
}

/** What the error says that ends the connection; frames before it are passed over. */
async function fatal(raw: RawLibpq): Promise<Record<string, string>> {
  for (;;) {
    const frame = await raw.frame();
    if (frame === null) throw new Error("closed without a word");
    if (frame.tag !== "E") continue;
    expect(await raw.frame()).toBeNull();
    raw.close();
    return errorFields(frame.body);
  }
}

const about = (entry: LogEntry): string => `${entry.message} ${entry.fields.error === undefined ? "" : String((entry.fields.error as Error).message)}`;
const lines = (pattern: RegExp): readonly LogEntry[] => log.entries.filter((entry) => pattern.test(about(entry)));

/** Waits for the line, sees that it is the only one, and about the timeline. */
async function saidOnce(pattern: RegExp, fields: Record<string, unknown> = IDS): Promise<void> {
  for (let left = 200; left > 0 && lines(pattern).length === 0; left--) await Bun.sleep(5);
  expect(lines(pattern).map((entry) => entry.fields)).toEqual([expect.objectContaining(fields)]);
}

async function intact(wal: SampleWal): Promise<void> {
  expect(await status()).toMatchObject({ flush_lsn: lsnToString(wal.endLsn), commit_lsn: lsnToString(wal.endLsn) });
}

describe("garbage", () => {
  test("before the handshake", async () => {
    await start();
    const { wal, proposer } = await pushed();
    for (const [bytes, sqlState, words] of [
      [Buffer.from("GET / HTTP/1.1\r\n\r\n"), "08P01", /invalid length/],
      [Buffer.alloc(4096, 0xfe), "08P01", /invalid length/],
      [Buffer.from("160301020001000001fc0303", "hex"), "08P01", /invalid length/],
      [Buffer.from("00000008000200000", "hex"), "0A000", /unsupported frontend protocol/],
    ] as const) {
      const raw = await RawLibpq.open(port());
      raw.write(bytes);
      const fields = await fatal(raw);
      expect(fields).toMatchObject({ S: "FATAL", C: sqlState, M: expect.stringMatching(words) });
    }
    expect(lines(/libpq connection refused/).length).toBe(4);
    await intact(wal);
    proposer.close();
  });

  test("after it", async () => {
    await start();
    const { wal, proposer } = await pushed();
    const unknown = await session();
    unknown.raw.write(Buffer.from("\x01 what is this"));
    expect(await fatal(unknown.raw)).toMatchObject({ S: "FATAL", C: "08P01" });
    await saidOnce(/libpq connection refused/);
    await intact(wal);
    proposer.close();
  });

  test("from a proposer, and a greeting for another timeline: nothing is made for it", async () => {
    await start();
    const { wal, proposer } = await pushed();
    const garbage = await inCopy("START_WAL_PUSH (proto_version '3')");
    garbage.copyData(Buffer.from("this is no message of a proposer"));
    expect(await fatal(garbage)).toMatchObject({ S: "FATAL", M: expect.stringContaining("unknown proposer message") });
    await saidOnce(/unknown proposer message/);
    const foreign = await ProposerDriver.connect(target({ timelineId: OTHER }));
    expect(await foreign.greet({ timelineId: TIMELINE }).catch((error: Error) => error.message)).toContain("on a connection of");
    await saidOnce(/greeting for/, { tenantId: TENANT, timelineId: OTHER });
    expect(readdirSync(join(directory, "data", TENANT))).toEqual([TIMELINE]);
    await intact(wal);
    proposer.close();
  });

  test("from a reader", async () => {
    await start();
    const { wal, proposer } = await pushed();
    for (const [extra, reply] of [["", "raw"], [` protocol={"type":"interpreted","args":{"format":"protobuf","compression":null}} shard_count=2 shard_number=1 shard_stripe_size=32768`, "interpreted"]] as const) {
      const raw = await inCopy(`START_REPLICATION PHYSICAL ${lsnToString(START)}`, extra);
      raw.copyData(Buffer.from(`?${reply}`));
      expect(await fatal(raw)).toMatchObject({ S: "FATAL", C: "08P01" });
    }
    expect(lines(/libpq connection refused/).map(({ fields }) => fields)).toEqual([expect.objectContaining(IDS), expect.objectContaining(IDS)]);
    expect((await status()).walsenders).toEqual([]);
    await intact(wal);
    proposer.close();
  });
});

describe("oversize", () => {
  test("messages are refused by what they say of their length, before they are taken in", async () => {
    await start();
    const { wal, proposer } = await pushed();
    const { raw } = await session();
    raw.write(Buffer.concat([Buffer.from("Q"), u32(0x7fff_ffff)]));
    expect(await fatal(raw)).toMatchObject({ S: "FATAL", C: "08P01", M: expect.stringContaining("invalid length") });
    await saidOnce(/invalid length/);
    const large = await ProposerDriver.connect(target());
    await large.greet();
    // An append's fields by hand: the driver sends none that is too long.
    large.sendEncoded(Buffer.concat([Buffer.from("a"), u32(0), u64(1), u64(wal.endLsn), u64(wal.endLsn + 256 * 1024), u64(0), u64(0), zeros(256 * 1024)]));
    expect(await large.receive().catch((error: Error) => error.message)).toContain("is not between 0 and 131072 bytes");
    await saidOnce(/is not between 0 and/);
    await intact(wal);
    proposer.close();
  });
});

describe("a wrong tenant or timeline", () => {
  test("malformed, missing, unknown, another tenant's", async () => {
    await start();
    const { wal, proposer } = await pushed();
    const malformed = await session({ ids: { tenantId: "nobody", timelineId: TIMELINE } });
    expect(errorFields(malformed.frames.at(-1)?.body ?? Buffer.alloc(0))).toMatchObject({ S: "FATAL", C: "22023" });
    const none = await session({ ids: null });
    none.raw.query("START_REPLICATION PHYSICAL 0/0");
    expect(errorFields(await none.raw.expect("E"))).toMatchObject({ S: "ERROR", C: "22023", M: expect.stringContaining("required") });
    for (const ids of [{ tenantId: TENANT, timelineId: OTHER }, { tenantId: OTHER, timelineId: TIMELINE }]) {
      const { raw } = await session({ ids });
      raw.query(`START_REPLICATION PHYSICAL ${lsnToString(START)}`);
      expect(errorFields(await raw.expect("E"))).toMatchObject({ S: "ERROR", C: "42704", M: expect.stringContaining("was not found") });
      await saidOnce(new RegExp(`${ids.tenantId}/${ids.timelineId} was not found`), ids);
      raw.close();
    }
    none.raw.close();
    await intact(wal);
    proposer.close();
  });
});

describe("tokens", () => {
  test("expired, signed by another, for another tenant, of another scope, none", async () => {
    const keys = generateTokenKeys();
    const keyPath = join(directory, "key.pem");
    writeFileSync(keyPath, keys.publicKeyPem);
    await start({ pgAuthPublicKeyPath: keyPath });
    const own: Claims = { scope: "tenant", tenantId: TENANT };
    const cases: readonly (readonly [string, string, string])[] = [
      [signToken(own, keys.privateKeyPem, { expiresAtSeconds: 1 }), "42501", "expired"],
      [signToken(own, generateTokenKeys().privateKeyPem), "42501", "signature"],
      [signToken({ scope: "tenant", tenantId: OTHER }, keys.privateKeyPem), "42501", "tenant"],
      [signToken({ scope: "pageserverapi" }, keys.privateKeyPem), "42501", "scope"],
      ["rubbish", "42501", ""],
    ];
    for (const [password, sqlState, word] of cases) {
      const { raw, frames } = await session({ password });
      expect(frames.at(-1)?.tag).toBe("E");
      const fields = errorFields(frames.at(-1)?.body ?? Buffer.alloc(0));
      expect(fields).toMatchObject({ S: "FATAL", C: sqlState });
      expect(fields.M.toLowerCase()).toContain(word);
      // What was sent does not come back, nor does it stand in the log.
      expect(fields.M).not.toContain(password);
      expect(await raw.frame()).toBeNull();
      raw.close();
    }
    const refusals = lines(/libpq connection refused/);
    expect(refusals.map(({ fields }) => fields)).toEqual(cases.map(() => expect.objectContaining(IDS)));
    for (const entry of log.entries) for (const [password] of cases) if (password !== "rubbish") expect(JSON.stringify([entry.message, entry.fields, about(entry)])).not.toContain(password);
    expect((await session({ password: signToken(own, keys.privateKeyPem) })).frames.at(-1)?.tag).toBe("Z");
  });
});

describe("a half-open peer", () => {
  test("a proposer of whom nothing comes is let go, before its greeting and after its election", async () => {
    await start({ connectionTimeouts: { ...CONNECTION_TIMEOUTS, silenceTimeoutMs: 200 } });
    const { wal, proposer } = await pushed();
    const mute = await inCopy("START_WAL_PUSH (proto_version '3')");
    expect(await status()).toMatchObject({ walreceivers: [{}] });
    expect(await fatal(mute)).toMatchObject({ S: "FATAL", C: "57P03", M: "nothing came for 200 ms" });
    expect(await proposer.flushedTo(wal.endLsn + 1).catch((error: Error) => error.message)).toContain("nothing came for 200 ms");
    expect(lines(/nothing came for/).map(({ fields }) => fields)).toEqual([expect.objectContaining(IDS), expect.objectContaining(IDS)]);
    expect(await status()).toMatchObject({ walreceivers: [] });
    await intact(wal);
  });

  test("a reader that does not answer is asked, and let go; one that answers stays", async () => {
    await start({ connectionTimeouts: { ...CONNECTION_TIMEOUTS, walSenderTimeoutMs: 1500 } });
    const { wal, proposer } = await pushed();
    const silent = await inCopy(`START_REPLICATION PHYSICAL ${lsnToString(wal.endLsn)}`);
    const answering = await inCopy(`START_REPLICATION PHYSICAL ${lsnToString(wal.endLsn)}`);
    let asked = 0;
    const answer = (async () => {
      for (let frame = await answering.frame(); frame !== null; frame = await answering.frame()) {
        if (frame.tag !== "d" || frame.body[0] !== 0x6b || frame.body[17] !== 1) continue;
        asked++;
        answering.copyData(Buffer.from("r"), u64(wal.endLsn), u64(wal.endLsn), u64(wal.endLsn), u64(0), Uint8Array.of(0));
      }
    })().catch(() => undefined);
    expect(await fatal(silent)).toMatchObject({ S: "FATAL", M: expect.stringContaining("the reader has said nothing for 1500 ms") });
    await saidOnce(/the reader has said nothing/);
    await Bun.sleep(1200);
    expect(asked).toBeGreaterThanOrEqual(2);
    expect((await status()).walsenders).toHaveLength(1);
    answering.close();
    await answer;
    proposer.close();
  }, 10_000);
});

/** A session whose client takes nothing from a moment on. */
async function deafReader(startLsn: number, extra?: string): Promise<RawLibpq> {
  const raw = await inCopy(`START_REPLICATION PHYSICAL ${lsnToString(startLsn)}`, extra);
  raw.pause();
  return raw;
}

/** Time for all the buffers on the way to be full. */
const FULL_MS = 700;

const INTERPRETED = ` protocol={"type":"interpreted","args":{"format":"protobuf","compression":null}} shard_count=1 shard_number=0 shard_stripe_size=32768`;

describe("a reader that takes nothing", () => {
  for (const [kind, extra] of [["raw", undefined], ["interpreted", INTERPRETED]] as const) {
    test(`of ${kind} WAL: reading stops, memory stays bounded, others go on, and it gets every byte when it reads again`, async () => {
      await start();
      const { wal, proposer } = await pushed(40 * MIB, 60_000);
      Bun.gc(true);
      const before = process.memoryUsage().arrayBuffers;
      const deaf = await deafReader(START, extra);
      await Bun.sleep(FULL_MS);
      Bun.gc(true);
      const held = process.memoryUsage().arrayBuffers - before;
      expect(held).toBeLessThan(8 * MIB);
      const other = await inCopy(`START_REPLICATION PHYSICAL ${lsnToString(START)}`);
      expect((await takeWal(other, START, wal.endLsn)).equals(Buffer.from(wal.bytes()))).toBe(true);
      other.close();
      deaf.resume();
      if (extra === undefined) expect((await takeWal(deaf, START, wal.endLsn)).equals(Buffer.from(wal.bytes()))).toBe(true);
      else expect(await interpretedUpTo(deaf, wal.endLsn)).toBe(wal.endLsn);
      deaf.close();
      proposer.close();
    }, 20_000);
  }

  test("is let go in the end, with one line", async () => {
    await start({ connectionTimeouts: { ...CONNECTION_TIMEOUTS, walSenderTimeoutMs: 600 } });
    const { wal, proposer } = await pushed(40 * MIB, 60_000);
    const deaf = await deafReader(START);
    await saidOnce(/has taken nothing/);
    for (let left = 100; left > 0 && ((await status()).walsenders as unknown[]).length > 0; left--) await Bun.sleep(20);
    expect((await status()).walsenders).toEqual([]);
    deaf.close();
    await intact(wal);
    proposer.close();
  }, 20_000);

  test("holds up neither the deletion of its timeline nor a stop", async () => {
    await start();
    const { proposer } = await pushed(40 * MIB, 60_000);
    const deaf = await deafReader(START);
    await Bun.sleep(FULL_MS);
    const startedMs = performance.now();
    const reply = await fetch(`http://127.0.0.1:${running?.httpPort}/v1/tenant/${TENANT}/timeline/${TIMELINE}`, { method: "DELETE" });
    expect(await reply.json()).toEqual({ dir_existed: true });
    deaf.close();
    proposer.close();
    const wal = new SampleWal(START).growTo(START + 40 * MIB, 60_000);
    const next = await ProposerDriver.connect(target({ timelineId: OTHER }));
    await next.pushNew(wal, 1);
    const another = await RawLibpq.session(port(), { user: "test", options: `-c tenant_id=${TENANT} timeline_id=${OTHER}` });
    another.raw.query(`START_REPLICATION PHYSICAL ${lsnToString(START)}`);
    await another.raw.expect("W");
    another.raw.pause();
    await Bun.sleep(FULL_MS);
    await running?.stop();
    running = null;
    expect(performance.now() - startedMs).toBeLessThan(15_000);
    another.raw.close();
    next.close();
  }, 30_000);
});

/** WAL from the stream; keepalives are passed over. */
async function takeWal(raw: RawLibpq, from: number, to: number): Promise<Buffer> {
  const out = Buffer.alloc(to - from);
  for (let at = from; at < to; ) {
    const frame = await raw.frame();
    if (frame === null) throw new Error("the stream ended");
    if (frame.tag !== "d" || frame.body[0] !== 0x77) continue;
    expect(Number(frame.body.readBigUInt64BE(1))).toBe(at);
    at += frame.body.copy(out, at - from, 25);
  }
  return out;
}

/** Takes interpreted messages until all WAL below `to` has been streamed. */
async function interpretedUpTo(raw: RawLibpq, to: number): Promise<number> {
  for (;;) {
    const frame = await raw.frame();
    if (frame === null) throw new Error("the stream ended");
    if (frame.tag !== "d" || frame.body[0] !== 0x30) continue;
    const streamed = Number(frame.body.readBigUInt64BE(1));
    if (streamed >= to) return streamed;
  }
}

describe("WAL that does not continue", () => {
  test("a gap and noise: refused, said once, the log as it was", async () => {
    await start();
    const { wal, proposer } = await pushed();
    const noise = Buffer.alloc(8000, 0x5a);
    for (const [beginLsn, walData, words] of [[wal.endLsn + 8, new Uint8Array(0), /leaves a gap/], [wal.endLsn, noise, /WAL at /]] as const) {
      const bad = await ProposerDriver.connect(target());
      await bad.greet();
      bad.send({ kind: "append", generation: 0, term: 1, beginLsn, endLsn: beginLsn + walData.length, commitLsn: 0, truncateLsn: 0, walData });
      expect(await bad.receive().catch((error: Error) => error.message)).toMatch(words);
      await saidOnce(words);
    }
    await intact(wal);
    proposer.close();
  });
});

describe("a data directory", () => {
  test("with a control file of a newer version, stray files and half-made directories: the good timelines serve, nothing is touched", async () => {
    await start();
    const { wal, proposer } = await pushed();
    const newer = await ProposerDriver.connect(target({ timelineId: OTHER }));
    await newer.pushNew(wal, 1);
    newer.close();
    proposer.close();
    await running?.stop();
    const data = join(directory, "data");
    const controlFile = join(data, TENANT, OTHER, "safekeeper.control");
    const bytes = readFileSync(controlFile);
    bytes.writeUInt32LE(11, 4);
    bytes.writeUInt32LE(crc32c(bytes.subarray(0, -4)), bytes.length - 4);
    writeFileSync(controlFile, bytes);
    const strays = [join(data, "notes.txt"), join(data, "4".repeat(32)), join(data, TENANT, "README"), join(data, TENANT, "5".repeat(32)), join(data, TENANT, TIMELINE, "core.1234")];
    for (const path of strays) writeFileSync(path, "stray");
    mkdirSync(join(data, TENANT, "6".repeat(32)));
    mkdirSync(join(data, "__temp", "half-made"), { recursive: true });
    mkdirSync(join(data, "lost+found"));
    log.expectWarn(/timeline cannot be opened|a stray file has a tenant's name/);
    await start();
    await intact(wal);
    const broken = lines(/timeline cannot be opened/);
    expect(broken.map(({ fields }) => fields.timelineId).sort()).toEqual([OTHER, "5".repeat(32), "6".repeat(32)]);
    expect(about(broken.find(({ fields }) => fields.timelineId === OTHER) as LogEntry)).toContain("version 11: this release reads up to 10");
    expect(readFileSync(controlFile).equals(bytes)).toBe(true);
    for (const path of strays) expect(readFileSync(path, "utf8")).toBe("stray");
    const again = await ProposerDriver.connect(target());
    await again.greet();
    expect(await again.requestVote(2)).toMatchObject({ voteGiven: true, flushLsn: wal.endLsn });
    again.close();
    // A proposer does not get a new timeline in the place of the one that cannot be read.
    const refused = await ProposerDriver.connect(target({ timelineId: OTHER }));
    expect(await refused.greet().then(() => "accepted", (error: Error) => error.message)).not.toBe("accepted");
    expect(readFileSync(controlFile).equals(bytes)).toBe(true);
  });
});
