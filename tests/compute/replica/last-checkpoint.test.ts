import { expect, test } from "bun:test";
import { findLastCheckpoint, type ReadWal } from "../../../src/compute/replica/last-checkpoint.ts";
import { StrataError } from "../../../src/kit/errors.ts";
import { type CheckPoint, encodeCheckPoint } from "../../../src/postgres/control-file/checkpoint.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import { encodeRecord } from "../../../src/postgres/wal/encode-record.ts";
import { WalWriter } from "../../../src/postgres/wal/wal-writer.ts";
import { fillFirstSegment, firstSegmentHeaders } from "../../../src/safekeeper/wal-store/first-segment.ts";

const MIB = 1024 * 1024;
const GEOMETRY = { version: 17, segmentSize: MIB } as const;
const CHECKPOINT: CheckPoint = {
  redo: 0, timelineId: 1, previousTimelineId: 1, fullPageWrites: false, walLevel: 1, nextFullXid: 800n, nextOid: 20000, nextMulti: 1, nextMultiOffset: 0, oldestXid: 730,
  oldestXidDb: 1, oldestMulti: 1, oldestMultiDb: 1, timeSeconds: 0n, oldestCommitTsXid: 0, newestCommitTsXid: 0, oldestActiveXid: 0,
};

class Log {
  readonly startLsn: number;
  readonly #writer: WalWriter;
  #bytes: Uint8Array = new Uint8Array(0);

  constructor(startLsn: number) {
    this.startLsn = startLsn;
    this.#writer = new WalWriter({ ...GEOMETRY, startLsn, previousLsn: startLsn - 100, systemId: 7n, timelineId: 1 });
  }
  get endLsn(): number {
    return this.startLsn + this.#bytes.length;
  }
  add(rmid: number, info: number, mainData: Uint8Array): number {
    const { lsn } = this.#writer.append(encodeRecord({ version: 17, rmid, info, mainData }));
    this.#bytes = Buffer.concat([this.#bytes, this.#writer.take()]);
    return lsn;
  }
  fillTo(lsn: number): void {
    while (this.#writer.position < lsn) this.add(RMGR.LOGICALMSG, 0, new Uint8Array(3000));
  }
  checkpoint(redo: number, info = 0x10): number {
    return this.add(RMGR.XLOG, info, encodeCheckPoint({ ...CHECKPOINT, redo }, 17));
  }
  readonly asked: number[] = [];
  /** As a safekeeper serves it: the first segment whole, nothing before it. */
  readonly read: ReadWal = async (from, to) => {
    this.asked.push(Math.floor(from / MIB));
    if (from < this.startLsn - (this.startLsn % MIB)) throw new StrataError("not-found", "server-error", "before the timeline's start");
    const made = new Uint8Array(Math.max(0, this.startLsn - from));
    fillFirstSegment(made, from, firstSegmentHeaders(GEOMETRY, 7n, this.startLsn));
    return Buffer.concat([made, this.#bytes.subarray(Math.max(0, from - this.startLsn), to - this.startLsn)]);
  };
}

test.each([["in the middle of a page", 5 * MIB + 3 * 8192 + 1000], ["on the first page", 5 * MIB + 1000], ["at a page's header", 5 * MIB + 8192 + 24], ["at a segment's header", 5 * MIB + 40]])("the first record of a timeline that starts %s", async (_where, start) => {
  const log = new Log(start);
  const lsn = log.checkpoint(start, 0x00);
  log.add(RMGR.XLOG, 0x60, new Uint8Array(Int32Array.of(200, 8, 10, 5, 64, 1, 0).buffer));
  log.fillTo(7 * MIB + 100_000);
  const found = await findLastCheckpoint(log.read, GEOMETRY, log.endLsn);
  expect(found).toMatchObject({ lsn, checkpoint: { redo: start, nextFullXid: 800n }, parameters: { maxConnections: 200, maxPreparedXacts: 5 } });
  expect(log.asked).toEqual([7, 6, 5]);
});

test("the newest before the LSN, also one that crosses into the next segment; later ones do not count", async () => {
  const log = new Log(5 * MIB + 1000);
  log.checkpoint(log.startLsn, 0x00);
  log.fillTo(7 * MIB - 3100);
  // Up to 50 bytes before the end of the segment.
  while (7 * MIB - log.endLsn > 100) log.add(RMGR.LOGICALMSG, 0, new Uint8Array(8));
  const crossing = log.checkpoint(6 * MIB);
  expect(crossing).toBeLessThan(7 * MIB);
  expect(log.endLsn).toBeGreaterThan(7 * MIB);
  log.fillTo(7 * MIB + 5000);
  const until = log.endLsn;
  expect((await findLastCheckpoint(log.read, GEOMETRY, until)).lsn).toBe(crossing);
  log.checkpoint(7 * MIB + 5000);
  expect((await findLastCheckpoint(log.read, GEOMETRY, until)).lsn).toBe(crossing);
});

test("a log without one is told, and not searched below its start", async () => {
  const log = new Log(5 * MIB + 1000);
  log.fillTo(6 * MIB + 5000);
  const failure = await findLastCheckpoint(log.read, GEOMETRY, log.endLsn).catch((error: unknown) => error);
  expect((failure as StrataError).code).toBe("no-checkpoint");
  expect(Math.min(...log.asked)).toBeGreaterThanOrEqual(4);
});
