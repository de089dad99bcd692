import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isStrataError } from "../../../src/kit/errors.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import { RealFiles } from "../../../src/platform/real/files.ts";
import { MemoryFile } from "../../../src/safekeeper/backup/memory-file.ts";
import { WalReader } from "../../../src/safekeeper/wal-store/wal-reader.ts";
import { NO_WAL_STORE_METRICS } from "../../../src/safekeeper/wal-store/wal-store-metrics.ts";
import { WalStore } from "../../../src/safekeeper/wal-store/wal-store.ts";
import { FaultFiles } from "../support/fault-files.ts";
import { MIB, SampleWal, SMALL_SEGMENTS } from "../support/sample-wal.ts";

const START = 5 * MIB + 3 * 8192 + 1000;

let directory: string;
let files: FaultFiles;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-wal-store-"));
  files = new FaultFiles(new RealFiles());
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const open = (commitLsn: Lsn, startLsn: Lsn = START): Promise<WalStore> =>
  WalStore.open({ files, directory, geometry: SMALL_SEGMENTS, systemId: () => 7n, sync: true, metrics: NO_WAL_STORE_METRICS }, { commitLsn, startLsn });

async function fresh(): Promise<WalStore> {
  const store = await open(0);
  await store.initializeFirstSegment(START);
  await store.truncate(START);
  return store;
}

async function codeOf(action: Promise<unknown>): Promise<string | null> {
  try {
    await action;
    return null;
  } catch (error) {
    if (isStrataError(error)) return error.code;
    throw error;
  }
}

async function readBack(from: Lsn, to: Lsn): Promise<Buffer> {
  const reader = new WalReader({ files, directory, geometry: SMALL_SEGMENTS, systemId: 7n, timelineStartLsn: START, localStartLsn: START });
  const out = Buffer.alloc(to - from);
  for (let at = 0; at < out.length; ) at += await reader.read(from + at, out.subarray(at));
  await reader.close();
  return out;
}

test("below the start of the WAL on this disk the bytes come from elsewhere, though the segment has a file here", async () => {
  const wal = new SampleWal(START).growTo(6 * MIB + 200_000);
  const middle = wal.lastEnd(5 * MIB + 500_000);
  const store = await open(0);
  await store.initializeFirstSegment(middle);
  await store.truncate(middle);
  await store.append(middle, wal.bytes(middle));
  await store.flush();
  const fetched: number[] = [];
  const whole = Buffer.concat([Buffer.alloc(START - 5 * MIB), wal.bytes(START, 6 * MIB)]);
  const fetchSegment = async (segment: number) => (fetched.push(segment), new MemoryFile("5", whole));
  const reader = new WalReader({ files, directory, geometry: SMALL_SEGMENTS, systemId: 7n, timelineStartLsn: START, localStartLsn: middle, fetchSegment });
  const out = Buffer.alloc(wal.endLsn - START);
  for (let at = 0; at < out.length; ) at += await reader.read(START + at, out.subarray(at));
  await reader.close();
  expect(out.equals(wal.bytes())).toBe(true);
  expect(fetched).toEqual([5]);
  await store.close();
});

const segments = (): string[] => readdirSync(directory).sort();

describe("append and flush", () => {
  test("nothing before a truncation, nothing out of place", async () => {
    const store = await open(0);
    expect(await codeOf(store.append(0, new Uint8Array(8)))).toBe("wal-not-continuous");
    await store.initializeFirstSegment(START);
    await store.truncate(START);
    expect(await codeOf(store.append(START + 8, new Uint8Array(8)))).toBe("wal-not-continuous");
  });

  test("the flush position is the end of a whole record", async () => {
    const wal = new SampleWal(START);
    const first = wal.add(100);
    const second = wal.add(20_000);
    const store = await fresh();
    await store.append(START, wal.bytes(START, first + 50));
    await store.flush();
    expect(store.flushRecordLsn).toBe(first);
    expect(store.writeLsn).toBe(first + 50);
    await store.append(first + 50, wal.bytes(first + 50));
    expect(store.flushRecordLsn).toBe(first);
    await store.flush();
    expect(store.flushRecordLsn).toBe(second);
    expect(await readBack(START, second)).toEqual(Buffer.from(wal.bytes()));
  });

  test("appends that wait together share one write and one fsync", async () => {
    const wal = new SampleWal(START);
    const store = await fresh();
    wal.add(10);
    await store.append(START, wal.bytes());
    await store.flush();
    const [writes, syncs] = [files.counts.get("write") ?? 0, files.counts.get("sync") ?? 0];
    for (let i = 0; i < 50; i++) {
      const from = wal.endLsn;
      await store.append(from, wal.bytes(from, wal.add(100)));
    }
    await store.flush();
    expect([files.counts.get("write"), files.counts.get("sync")]).toEqual([writes + 1, syncs + 1]);
    await store.flush();
    expect(files.counts.get("sync")).toBe(syncs + 1);
  });

  test("a completed segment is durable and renamed without a flush", async () => {
    const wal = new SampleWal(START).growTo(7 * MIB + 500, 3000);
    const store = await fresh();
    await store.append(START, wal.bytes());
    expect(segments()).toEqual(["000000010000000000000005", "000000010000000000000006", "000000010000000000000007.partial"]);
    expect(store.flushRecordLsn).toBe(wal.lastEnd(7 * MIB));
    await store.flush();
    expect(store.flushRecordLsn).toBe(wal.endLsn);
    expect(await readBack(START, wal.endLsn)).toEqual(Buffer.from(wal.bytes()));
    expect(statSync(join(directory, "000000010000000000000005")).size).toBe(MIB);
    // Only ever extended: the last file is as long as the log.
    expect(statSync(join(directory, "000000010000000000000007.partial")).size).toBe(wal.endLsn - 7 * MIB);
  });

  test("bytes that are not WAL are refused and leave what was flushed", async () => {
    const wal = new SampleWal(START);
    const first = wal.add(100);
    wal.add(100);
    const store = await fresh();
    await store.append(START, wal.bytes(START, first));
    await store.flush();
    const broken = Buffer.from(wal.bytes(first));
    broken[30] ^= 1;
    expect(await codeOf(store.append(first, broken))).toBe("wal-bad-crc");
    expect(store).toMatchObject({ writeLsn: first, flushRecordLsn: first, needsTruncation: true, failure: null });
    expect(await codeOf(store.append(first, wal.bytes(first)))).toBe("wal-not-continuous");
    await store.truncate(first);
    await store.append(first, wal.bytes(first));
    await store.flush();
    expect(store.flushRecordLsn).toBe(wal.endLsn);
  });

  test("the headers before the start are what a reader gets, and what is in the file", async () => {
    const wal = new SampleWal(START);
    wal.add(100);
    const store = await fresh();
    await store.append(START, wal.bytes());
    await store.flush();
    const made = await readBack(5 * MIB, START);
    expect(made).toEqual(readFileSync(join(directory, "000000010000000000000005.partial")).subarray(0, START - 5 * MIB));
    expect(made.readUInt16LE(0)).toBe(0xd116);
    expect(made.readBigUInt64LE(24)).toBe(7n);
    expect(made.readUInt16LE(3 * 8192 + 2)).toBe(1);
    expect(made.readUInt32LE(3 * 8192 + 16)).toBe(1000 - 24);
    expect(await codeOf(readBack(4 * MIB, 4 * MIB + 8))).toBe("wal-before-timeline");
  });
});

describe("room made ahead", () => {
  const sizeOf = (name: string): number => statSync(join(directory, name)).size;
  const LAST = "000000010000000000000005.partial";

  /** A store to which one small record was written, made durable, and behind which room was made. */
  async function prepared(): Promise<{ wal: SampleWal; store: WalStore }> {
    const wal = new SampleWal(START);
    wal.add(100);
    const store = await fresh();
    await store.append(START, wal.bytes());
    expect(store.runsShort).toBe(false);
    await store.flush();
    expect(store.runsShort).toBe(true);
    await store.prepareAhead();
    expect(store.runsShort).toBe(false);
    return { wal, store };
  }

  test("small flushes find it, and what is read is the log", async () => {
    const { wal, store } = await prepared();
    const size = sizeOf(LAST);
    expect(size).toBeGreaterThan(wal.endLsn - 5 * MIB);
    while (wal.endLsn % MIB < size - 20_000) {
      const from = wal.endLsn;
      await store.append(from, wal.bytes(from, wal.add(3000)));
      await store.flush();
      if (store.runsShort) break;
      expect(sizeOf(LAST)).toBe(size);
    }
    expect(store.flushRecordLsn).toBe(wal.endLsn);
    expect(await readBack(START, wal.endLsn)).toEqual(Buffer.from(wal.bytes()));
  });

  test("the end of the log is found in it, and a truncation removes it", async () => {
    const { wal, store } = await prepared();
    await store.close();
    const again = await open(START);
    expect(again.flushRecordLsn).toBe(wal.endLsn);
    await again.truncate(wal.endLsn);
    expect(sizeOf(LAST)).toBe(wal.endLsn - 5 * MIB);
  });

  test("a segment is no longer for it, and has its final name only when it is full", async () => {
    const wal = new SampleWal(START).growTo(6 * MIB - 100_000, 5000);
    const store = await fresh();
    await store.append(START, wal.bytes());
    await store.flush();
    expect(store.runsShort).toBe(false);
    const from = wal.endLsn;
    await store.append(from, wal.bytes(from, wal.add(200)));
    await store.flush();
    await store.prepareAhead();
    expect(sizeOf(LAST)).toBe(MIB);
    expect(store.runsShort).toBe(false);
    wal.growTo(6 * MIB + 1000, 900);
    const middle = store.writeLsn;
    await store.append(middle, wal.bytes(middle));
    expect(segments()).toEqual(["000000010000000000000005", "000000010000000000000006.partial"]);
    await store.flush();
    expect(await readBack(START, wal.endLsn)).toEqual(Buffer.from(wal.bytes()));
  });

  test("a disk without room for it still takes the log; one that fails takes nothing more", async () => {
    const { wal, store } = await prepared();
    const [first, size] = [wal.endLsn, sizeOf(LAST)];
    while (!store.runsShort) {
      const from = wal.endLsn;
      await store.append(from, wal.bytes(from, wal.add(2000)));
      await store.flush();
    }
    files.failOnce("write", "disk-full");
    await store.prepareAhead();
    expect(store).toMatchObject({ failure: null, needsTruncation: false, runsShort: false });
    while (wal.endLsn - 5 * MIB < size + 10_000 || !store.runsShort) {
      const from = wal.endLsn;
      await store.append(from, wal.bytes(from, wal.add(2000)));
      await store.flush();
    }
    expect(await readBack(first, wal.endLsn)).toEqual(Buffer.from(wal.bytes(first)));
    files.failOnce("write", "io-error");
    expect(await codeOf(store.prepareAhead())).toBe("io-error");
    expect(store.failure?.code).toBe("wal-store-failed");
    expect(store.flushRecordLsn).toBe(wal.endLsn);
  });
});

describe("failures", () => {
  test("a failed fsync is fatal and never tried again", async () => {
    const wal = new SampleWal(START);
    wal.add(100);
    const store = await fresh();
    await store.append(START, wal.bytes());
    files.failOnce("sync", "io-error");
    expect(await codeOf(store.flush())).toBe("fsync-failed");
    const syncs = files.counts.get("sync");
    expect(store.failure?.code).toBe("wal-store-failed");
    expect(await codeOf(store.flush())).toBe("wal-store-failed");
    expect(await codeOf(store.truncate(START))).toBe("wal-store-failed");
    expect(await codeOf(store.append(START, wal.bytes()))).toBe("wal-store-failed");
    expect(files.counts.get("sync")).toBe(syncs);
    expect(store.flushRecordLsn).toBe(START);
  });

  test("a full disk loses nothing that was flushed and heals by a truncation", async () => {
    const wal = new SampleWal(START);
    const first = wal.add(100);
    wal.add(200);
    const store = await fresh();
    await store.append(START, wal.bytes(START, first));
    await store.flush();
    await store.append(first, wal.bytes(first));
    files.failOnce("write", "disk-full");
    expect(await codeOf(store.flush())).toBe("disk-full");
    expect(store).toMatchObject({ writeLsn: first, flushRecordLsn: first, needsTruncation: true, failure: null });
    await store.truncate(first);
    await store.append(first, wal.bytes(first));
    await store.flush();
    expect(await readBack(START, wal.endLsn)).toEqual(Buffer.from(wal.bytes()));
  });

  test("an interrupted truncation keeps the log closed and is repeated", async () => {
    const wal = new SampleWal(START).growTo(7 * MIB + 5000);
    const store = await fresh();
    await store.append(START, wal.bytes());
    await store.flush();
    const cut = wal.lastEnd(6 * MIB + 9000);
    files.failOnce("truncate", "disk-full");
    expect(await codeOf(store.truncate(cut))).toBe("disk-full");
    expect(store).toMatchObject({ writeLsn: cut, flushRecordLsn: cut, needsTruncation: true });
    expect(await codeOf(store.append(cut, wal.bytes(cut)))).toBe("wal-not-continuous");
    await store.truncate(cut);
    expect(segments()).toEqual(["000000010000000000000005", "000000010000000000000006.partial"]);
    const other = new SampleWal(cut, { seed: 99, previousLsn: START }).growTo(cut + 10_000);
    await store.append(cut, other.bytes());
    await store.flush();
    expect(await readBack(START, other.endLsn)).toEqual(Buffer.concat([wal.bytes(START, cut), other.bytes()]));
  });
});

describe("restart", () => {
  async function written(upTo: Lsn): Promise<SampleWal> {
    const wal = new SampleWal(START).growTo(upTo, 5000);
    const store = await fresh();
    await store.append(START, wal.bytes());
    await store.close();
    return wal;
  }

  test("the end is the last whole record, wherever the crash cut", async () => {
    const wal = await written(6 * MIB + 50_000);
    const path = join(directory, "000000010000000000000006.partial");
    await fc.assert(fc.asyncProperty(fc.integer({ min: 1, max: 40_000 }), async (less) => {
      truncateSync(path, wal.endLsn - 6 * MIB - less);
      const store = await open(START);
      expect(store.flushRecordLsn).toBe(wal.lastEnd(wal.endLsn - less));
      await store.close();
      truncateSync(path, wal.lastEnd(wal.endLsn - less) - 6 * MIB);
      appendFileSync(path, wal.bytes(wal.lastEnd(wal.endLsn - less)));
    }), { numRuns: 30 });
  });

  test("garbage behind the end is cut off before anything is appended", async () => {
    const wal = await written(6 * MIB + 50_000);
    appendFileSync(join(directory, "000000010000000000000006.partial"), Buffer.alloc(5000, 0xab));
    const store = await open(wal.ends[3]);
    expect(store).toMatchObject({ flushRecordLsn: wal.endLsn, needsTruncation: true });
    await store.truncate(wal.endLsn);
    expect(statSync(join(directory, "000000010000000000000006.partial")).size).toBe(wal.endLsn - 6 * MIB);
  });

  test("a log that ends exactly with a segment goes on in the next", async () => {
    const wal = await written(6 * MIB - 30_000);
    // A record that fills the segment to its last byte.
    const last = 6 * MIB - wal.endLsn;
    let size = last - 400;
    for (; ; size += 1) {
      const trial = new SampleWal(wal.endLsn, { previousLsn: wal.lastRecordLsn });
      if (trial.add(size) === 6 * MIB) break;
      expect(size).toBeLessThan(last);
    }
    const rest = new SampleWal(wal.endLsn, { previousLsn: wal.lastRecordLsn });
    rest.add(size);
    rest.add(777);
    const store = await open(START);
    await store.truncate(wal.endLsn);
    await store.append(wal.endLsn, rest.bytes(wal.endLsn, 6 * MIB));
    expect(store.flushRecordLsn).toBe(6 * MIB);
    await store.close();
    const again = await open(START);
    expect(again.flushRecordLsn).toBe(6 * MIB);
    await again.truncate(6 * MIB);
    await again.append(6 * MIB, rest.bytes(6 * MIB));
    await again.flush();
    expect(await readBack(wal.endLsn, rest.endLsn)).toEqual(Buffer.from(rest.bytes()));
  });

  test("less than what was committed is an error, not a shorter log", async () => {
    const wal = await written(6 * MIB + 50_000);
    truncateSync(join(directory, "000000010000000000000006.partial"), 1000);
    expect(await codeOf(open(wal.endLsn))).toBe("wal-lost");
    rmSync(join(directory, "000000010000000000000006.partial"));
    expect(await codeOf(open(wal.endLsn))).toBe("wal-lost");
  });

  test("whole segments below a horizon can go, the partial one never", async () => {
    const wal = await written(8 * MIB + 100);
    const store = await open(wal.endLsn);
    expect(await store.removeBefore(7)).toBe(2);
    expect(segments()).toEqual(["000000010000000000000007", "000000010000000000000008.partial"]);
    expect(await store.removeBefore(100)).toBe(1);
    expect(segments()).toEqual(["000000010000000000000008.partial"]);
  });
});

test("whatever way the bytes are cut and flushed, what is read is what was written and every flush position is real", async () => {
  const step = fc.record({ bytes: fc.oneof(fc.integer({ min: 1, max: 300_000 }), fc.integer({ min: 1, max: 5000 })), flush: fc.boolean(), prepare: fc.boolean(), reopen: fc.boolean() });
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 16 }), fc.integer({ min: 300, max: 60_000 }), async (steps, recordBytes) => {
    rmSync(directory, { recursive: true, force: true });
    await files.makeDirectory(directory);
    const wal = new SampleWal(START).growTo(START + 2 * MIB, recordBytes);
    let store = await fresh();
    for (const { bytes, flush, prepare, reopen } of steps) {
      await store.append(store.writeLsn, wal.bytes(store.writeLsn, Math.min(wal.endLsn, store.writeLsn + bytes)));
      if (flush) await store.flush();
      expect(store.flushRecordLsn).toBe(wal.lastEnd(store.flushRecordLsn));
      if (flush) expect(store.flushRecordLsn).toBe(wal.lastEnd(store.writeLsn));
      if (prepare) await store.prepareAhead();
      if (!reopen) continue;
      const flushed = store.flushRecordLsn;
      await store.close();
      store = await open(START);
      expect(store.flushRecordLsn).toBeGreaterThanOrEqual(flushed);
      await store.truncate(store.flushRecordLsn);
    }
    await store.flush();
    expect(await readBack(START, store.flushRecordLsn)).toEqual(Buffer.from(wal.bytes(START, store.flushRecordLsn)));
    await store.close();
  }), { numRuns: 20 });
});
