/** All safekeepers have lost a timeline: each makes it again from the WAL backup, and together they go on where it ends. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { isStrataError } from "../../src/kit/errors.ts";
import { type Lsn, lsnToString, parseLsn } from "../../src/kit/lsn.ts";
import { WalWriter } from "../../src/postgres/wal/wal-writer.ts";
import type { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { LocalDirectoryStorage } from "../../src/remote-storage/local-directory.ts";
import { type BackedUpWal, readBackedUpWal } from "../../src/safekeeper/backup/backed-up-wal.ts";
import { restoreTimeline } from "../../src/safekeeper/backup/restore-timeline.ts";
import { parsePartialName } from "../../src/safekeeper/backup/partial-backup.ts";
import { SAFEKEEPER_DEFAULTS } from "../../src/safekeeper/config.ts";
import type { Timelines } from "../../src/safekeeper/timeline/timelines.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import { fillFirstSegment, firstSegmentHeaders, startInFirstSegment } from "../../src/safekeeper/wal-store/first-segment.ts";
import { testLogger } from "../support/test-logger.ts";
import { platform, ProposerDriver, type Target } from "./support/driver.ts";
import { readWal } from "./support/read-wal.ts";
import { MIB, SampleWal, SMALL_SEGMENTS } from "./support/sample-wal.ts";

const ID = { tenantId: "11111111111111111111111111111111", timelineId: "22222222222222222222222222222222" };
const START = 5 * MIB + 3 * 8192 + 1000;
const SEGMENTS = ["000000010000000000000005", "000000010000000000000006", "000000010000000000000007"];

let directory: string;
let log: RecordingLogger;
let storage: LocalDirectoryStorage;
const running: RunningSafekeeper[] = [];

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "strata-restore-"));
  log = testLogger();
  storage = await LocalDirectoryStorage.open(join(directory, "remote"), platform);
});
afterEach(async () => {
  for (const one of running.splice(0)) await one.stop();
  rmSync(directory, { recursive: true, force: true });
});

async function start(nodeId: number, name: string): Promise<RunningSafekeeper> {
  const anyPort = { host: "127.0.0.1", port: 0 };
  const config = { ...SAFEKEEPER_DEFAULTS, dataDirectory: join(directory, name), nodeId, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: null, partialBackupTimeoutMs: 50 };
  const safekeeper = await startSafekeeper(config, { platform, log, remoteStorage: storage });
  running.push(safekeeper);
  return safekeeper;
}

const objects = (...parts: string[]): string => join(directory, "remote", ID.tenantId, ID.timelineId, ...parts);
const hex = (lsn: Lsn): string => lsn.toString(16).toUpperCase().padStart(16, "0");
const partialName = (segment: string, at: { term: number; flush: Lsn; commit: Lsn; node: number }): string => `${segment}_${at.term}_${hex(at.flush)}_${hex(at.commit)}_sk${at.node}.partial`;

/** The first segment's beginning, and the log. */
function wholeBytes(wal: SampleWal): Buffer {
  const before = new Uint8Array(wal.startLsn % MIB);
  fillFirstSegment(before, wal.startLsn - before.length, firstSegmentHeaders(SMALL_SEGMENTS, 7n, wal.startLsn));
  return Buffer.concat([before, wal.bytes()]);
}

/** As safekeepers would have left it; the log's end is in the partial segment. */
function backUp(wal: SampleWal, partials: readonly { term: number; flush: Lsn; commit: Lsn; node: number }[]): void {
  mkdirSync(objects(), { recursive: true });
  const bytes = wholeBytes(wal);
  SEGMENTS.forEach((name, index) => writeFileSync(objects(name), bytes.subarray(index * MIB, (index + 1) * MIB)));
  for (const partial of partials) writeFileSync(objects(partialName("000000010000000000000008", partial)), bytes.subarray(3 * MIB, partial.flush - 5 * MIB));
}

const read = (ignoreGap = false): Promise<BackedUpWal> => readBackedUpWal({ storage, id: ID, signal: new AbortController().signal, ignoreGap });
const codeOf = (work: Promise<unknown>): Promise<unknown> => work.then(() => "ok", (error: unknown) => (isStrataError(error) ? error.code : error));
const positions = ({ startLsn, commitLsn, flushLsn, partial }: BackedUpWal) => ({ startLsn, commitLsn, flushLsn, partial: partial?.name ?? null });

async function restore(one: RunningSafekeeper, body: unknown = {}): Promise<{ status: number; code: string | null; body: Record<string, unknown> }> {
  const reply = await fetch(`http://127.0.0.1:${one.httpPort}/v1/tenant/${ID.tenantId}/timeline/${ID.timelineId}/restore_from_backup`, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } });
  return { status: reply.status, code: reply.headers.get("x-error-code"), body: (await reply.json()) as Record<string, unknown> };
}

async function status(one: RunningSafekeeper): Promise<{ recovering: boolean; flush_lsn: string; acceptor_state: { term: number; epoch: number } }> {
  return (await (await fetch(`http://127.0.0.1:${one.httpPort}/v1/tenant/${ID.tenantId}/timeline/${ID.timelineId}`)).json()) as never;
}

test("what real safekeepers backed up is a timeline again, voting when all others have answered; it goes on, and is read from its start", async () => {
  const first = await start(1, "first");
  const wal = new SampleWal(START).growTo(8 * MIB + 50_000);
  const before = await ProposerDriver.connect({ port: first.pgPort, ...ID });
  await before.pushNew(wal, 4);
  before.close();
  const complete = (): boolean => existsSync(objects()) && readdirSync(objects()).length === 4;
  for (let tries = 0; tries < 200 && !complete(); tries++) await Bun.sleep(50);
  expect(complete()).toBe(true);
  for (const one of running.splice(0)) await one.stop();

  log.expectWarn("timeline made from its WAL backup");
  const all = [await start(1, "new1"), await start(2, "new2"), await start(3, "new3")];
  for (const one of all) {
    expect(await restore(one)).toMatchObject({ status: 200, body: { timeline_start_lsn: lsnToString(START), flush_lsn: lsnToString(wal.endLsn), commit_lsn: lsnToString(wal.endLsn) } });
    expect(await status(one)).toMatchObject({ recovering: true, flush_lsn: lsnToString(wal.endLsn), acceptor_state: { term: 0, epoch: 0 } });
    expect((await restore(one)).code).toBe("timeline-exists");
  }
  expect((await readWal({ port: all[0].pgPort, ...ID }, { from: START, to: wal.endLsn })).equals(wal.bytes())).toBe(true);

  const target = (one: RunningSafekeeper): Target => ({ port: one.pgPort, ...ID, peers: all.filter((other) => other !== one).map(({ pgPort }) => `127.0.0.1:${pgPort}`) });
  const end = wal.endLsn;
  wal.growTo(9 * MIB + 10_000);
  const proposers = await Promise.all(all.map((one) => connected(target(one))));
  proposers.pop()?.close();
  for (const [index, proposer] of proposers.entries()) {
    expect(await proposer.requestVote(5)).toMatchObject({ voteGiven: true, flushLsn: end, termHistory: [{ term: 0, lsn: START }] });
    proposer.elected([{ term: 0, lsn: START }, { term: 5, lsn: end }], end);
    proposer.append(wal, { from: end, to: wal.endLsn, commitLsn: end });
    await proposer.flushedTo(wal.endLsn);
    proposer.append(wal, { from: wal.endLsn, to: wal.endLsn, commitLsn: wal.endLsn });
    await proposer.flushedTo(wal.endLsn);
    proposer.close();
    expect((await readWal({ port: all[index].pgPort, ...ID }, { from: START, to: wal.endLsn })).equals(wal.bytes())).toBe(true);
  }
  for (let tries = 0; tries < 200 && !existsSync(objects("000000010000000000000008")); tries++) await Bun.sleep(50);
  expect(readFileSync(objects("000000010000000000000008")).equals(wal.bytes(8 * MIB, 9 * MIB))).toBe(true);
}, 60_000);

/** A node that may have lost promises lets nobody in for some seconds. */
async function connected(target: Target): Promise<ProposerDriver> {
  for (let tries = 0; ; tries++) {
    const proposer = await ProposerDriver.connect(target);
    try {
      await proposer.greet();
      return proposer;
    } catch (error) {
      if (tries > 60) throw error;
      await Bun.sleep(250);
    }
  }
}

test("the end is the unfinished segment of the highest term, then the longest; what it is not known to have committed counts as flushed", async () => {
  const wal = new SampleWal(START).growTo(8 * MIB + 90_000);
  const end = (index: number): Lsn => wal.ends.at(index) ?? 0;
  backUp(wal, [{ term: 3, flush: end(-1), commit: end(-7), node: 1 }, { term: 4, flush: end(-4), commit: end(-6), node: 2 }, { term: 4, flush: end(-3), commit: end(-5), node: 3 }]);
  const name = partialName("000000010000000000000008", { term: 4, flush: end(-3), commit: end(-5), node: 3 });
  expect(positions(await read())).toEqual({ startLsn: START, commitLsn: end(-5), flushLsn: end(-3), partial: name });

  log.expectWarn("timeline made from its WAL backup");
  const one = await start(2, "new");
  expect((await restore(one)).body).toMatchObject({ commit_lsn: lsnToString(end(-5)), flush_lsn: lsnToString(end(-3)), unfinished_segment: name });
  expect((await status(one)).flush_lsn).toBe(lsnToString(end(-3)));
  expect(readdirSync(join(directory, "new", ID.tenantId, ID.timelineId)).sort()).toEqual(["000000010000000000000008.partial", "safekeeper.control"]);
}, 20_000);

test("an unfinished segment that another one has replaced since the listing is read as it is now", async () => {
  const wal = new SampleWal(START).growTo(8 * MIB + 90_000);
  const before = { term: 3, flush: wal.endLsn, commit: wal.endLsn, node: 1 };
  const after = { ...before, term: 0, node: 2 };
  backUp(wal, [before]);
  const segment = "000000010000000000000008";
  let downloads = 0;
  const replaced = new Proxy(storage, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name, target);
      if (typeof member !== "function") return member;
      return (...args: unknown[]) => {
        if (name === "download" && String(args[0]).includes(".partial") && downloads++ === 0) renameSync(objects(partialName(segment, before)), objects(partialName(segment, after)));
        return Reflect.apply(member, target, args) as unknown;
      };
    },
  });
  const found = await readBackedUpWal({ storage: replaced, id: ID, signal: new AbortController().signal, ignoreGap: false });
  expect([found.partial?.nodeId, found.flushLsn, downloads]).toEqual([2, wal.endLsn, 2]);
});

test("restored twice: what was written since the first time counts, whatever terms there were before, and old objects go", async () => {
  const wal = new SampleWal(START).growTo(8 * MIB + 90_000);
  const stale = { term: 9, flush: wal.endLsn, commit: wal.endLsn, node: 77 };
  backUp(wal, [stale]);
  log.expectWarn("timeline made from its WAL backup");
  const one = await start(1, "once");
  expect((await restore(one)).status).toBe(200);
  const end = wal.endLsn;
  wal.growTo(end + 60_000);
  const proposer = await connected({ port: one.pgPort, ...ID, peers: [] });
  expect(await proposer.requestVote(1)).toMatchObject({ voteGiven: true });
  proposer.elected([{ term: 0, lsn: START }, { term: 1, lsn: end }], end);
  proposer.append(wal, { from: end, to: wal.endLsn, commitLsn: wal.endLsn });
  await proposer.flushedTo(wal.endLsn);
  proposer.close();
  const segment = "000000010000000000000008";
  const newest = partialName(segment, { term: 1, flush: wal.endLsn, commit: wal.endLsn, node: 1 });
  const names = (): string => readdirSync(objects()).filter((name) => name.startsWith(`${segment}_`)).join();
  for (let tries = 0; tries < 200 && names() !== newest; tries++) await Bun.sleep(50);
  expect(names()).toBe(newest);
  // As if it had been killed before it could remove the old one.
  backUp(wal, [stale]);
  expect(positions(await read())).toMatchObject({ flushLsn: wal.endLsn, partial: newest });
}, 30_000);

test("a proposer that those who are gone had elected cannot go on", async () => {
  const wal = new SampleWal(START).growTo(8 * MIB + 90_000);
  backUp(wal, [{ term: 4, flush: wal.endLsn, commit: wal.endLsn, node: 1 }]);
  log.expectWarn("timeline made from its WAL backup");
  const one = await start(2, "new");
  expect((await restore(one)).status).toBe(200);
  for (const from of [wal.endLsn, START]) {
    const before = await connected({ port: one.pgPort, ...ID, peers: [] });
    await before.requestVote(4);
    before.term = 4;
    before.elected([{ term: 4, lsn: START }], from);
    await expect(before.receive()).rejects.toThrow(from === START ? "commit" : "it parts at");
  }
  expect((await status(one)).flush_lsn).toBe(lsnToString(wal.endLsn));
}, 20_000);

test("of whole segments alone the last whole record is the end, and was committed; a record across segments is cut off", async () => {
  const wal = new SampleWal(START).growTo(8 * MIB + 90_000, 30_000);
  backUp(wal, []);
  const last = Math.max(...wal.ends.filter((lsn) => lsn <= 8 * MIB));
  expect(positions(await read())).toEqual({ startLsn: START, commitLsn: last, flushLsn: last, partial: null });
  log.expectWarn("timeline made from its WAL backup");
  const one = await start(1, "new");
  expect((await restore(one)).status).toBe(200);
  expect(parseLsn((await status(one)).flush_lsn)).toBe(last);
  expect((await readWal({ port: one.pgPort, ...ID }, { from: START, to: last })).equals(wal.bytes(START, last))).toBe(true);
}, 20_000);

test("a record longer than segments is found from where it begins", async () => {
  const wal = new SampleWal(START).growTo(START + 20_000);
  wal.add(2 * MIB);
  wal.growTo(8 * MIB + 20_000);
  backUp(wal, [{ term: 1, flush: wal.endLsn, commit: START, node: 1 }]);
  const last = Math.max(...wal.ends.filter((lsn) => lsn <= 8 * MIB));
  expect(positions(await read())).toMatchObject({ commitLsn: last, flushLsn: wal.endLsn });
});

test("what is missing or damaged is refused in its own words", async () => {
  const wal = new SampleWal(START).growTo(8 * MIB + 90_000);
  expect(await codeOf(read())).toBe("no-wal-backup");
  const partial = { term: 1, flush: wal.endLsn, commit: wal.endLsn, node: 1 };
  backUp(wal, [partial]);
  const name = partialName("000000010000000000000008", partial);
  const known = { find: () => null } as unknown as Timelines;
  const elsewhere = restoreTimeline({ storage, id: ID, signal: new AbortController().signal, ignoreGap: false }, {
    timelines: known, files: platform.files, sync: false, nodeId: 1, nowMs: 0, askOthers: async (_, lsn) => ({ kind: lsn === wal.endLsn ? "known" : "new", by: "2 at somewhere", term: 1, heard: 1 }),
  });
  expect(await codeOf(elsewhere)).toBe("timeline-elsewhere");

  const damaged = async (path: string, change: (bytes: Buffer) => Buffer): Promise<unknown> => {
    const saved = join(directory, "saved");
    copyFileSync(objects(path), saved);
    writeFileSync(objects(path), change(readFileSync(saved)));
    const code = await codeOf(read());
    copyFileSync(saved, objects(path));
    return code;
  };
  const flip = (at: number) => (bytes: Buffer): Buffer => (bytes.writeUInt8(bytes.readUInt8(at) ^ 0x40, at), bytes);
  expect(await damaged(SEGMENTS[1], (bytes) => bytes.subarray(0, MIB - 1))).toBe("bad-wal-backup");
  expect(await damaged(SEGMENTS[2], flip(MIB / 2))).toBe("bad-wal-backup");
  expect(await damaged(name, flip(50_000))).toBe("bad-wal-backup");
  expect(await damaged(name, (bytes) => bytes.subarray(0, 50_000))).toBe("bad-wal-backup");
  expect(await damaged(SEGMENTS[0], flip(0))).toBe("bad-wal-backup");
  expect(await damaged(SEGMENTS[0], flip(33))).toBe("bad-wal-backup");
  expect(await damaged(SEGMENTS[0], () => Buffer.alloc(10))).toBe("bad-wal-backup");
  expect(await codeOf(read())).toBe("ok");

  rmSync(objects(SEGMENTS[1]));
  expect(await codeOf(read())).toBe("backup-has-gap");
  expect((await read(true)).flushLsn).toBe(Math.max(...wal.ends.filter((lsn) => lsn <= 6 * MIB)));
  rmSync(objects(SEGMENTS[0]));
  expect(await codeOf(read(true))).toBe("bad-wal-backup");
});

test("where a timeline starts is told by its first segment", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: MIB / 8 - 2000 }), (words) => {
      const startLsn = 5 * MIB + words * 8;
      const inPage = startLsn % 8192;
      // Inside a page's header nothing starts.
      fc.pre(inPage === 0 || inPage > (startLsn < 5 * MIB + 8192 ? 40 : 24));
      const segment = new Uint8Array(MIB);
      const bytes = wholeBytes(new SampleWal(startLsn).growTo(startLsn + 12_000, 200));
      segment.set(bytes.subarray(0, MIB));
      expect(startInFirstSegment(segment, 5 * MIB, SMALL_SEGMENTS)).toBe(startLsn);
    }),
    { numRuns: 60 },
  );
  // The middle of a log is none.
  const middle = new SampleWal(START).growTo(7 * MIB + 100_000, 30_000);
  expect(startInFirstSegment(middle.bytes(6 * MIB, 7 * MIB), 6 * MIB, SMALL_SEGMENTS)).toBe(null);
  expect(new WalWriter({ ...SMALL_SEGMENTS, startLsn: START, previousLsn: START - 100, systemId: 7n, timelineId: 1 }).position).toBe(START);
});

test("names of unfinished segments", () => {
  const name = partialName(SEGMENTS[0], { term: 12, flush: 0x1_0000_0010, commit: 0x20, node: 7 });
  expect(parsePartialName(name)).toEqual({ name, term: 12, flushLsn: 0x1_0000_0010, commitLsn: 0x20, nodeId: 7 });
  for (const bad of [SEGMENTS[0], `${name}x`, name.replace("_12_", "_-1_"), name.replace("sk7", "sk"), name.replace("0000000100000010", "FFFFFFFFFFFFFFFF")]) expect(parsePartialName(bad)).toBe(null);
});
