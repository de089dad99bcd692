/** What a stream may hold besides whole records: aborted records, switched segments, headers that do not fit. */
import { describe, expect, test } from "bun:test";
import { dataViewOf } from "../../../src/kit/bytes.ts";
import { InvariantError } from "../../../src/kit/errors.ts";
import { RMGR, XLOG_SWITCH } from "../../../src/postgres/wal/constants.ts";
import { encodeRecord } from "../../../src/postgres/wal/encode-record.ts";
import { XLP_FIRST_IS_OVERWRITE_CONTRECORD } from "../../../src/postgres/wal/page-header.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { WalWriter } from "../../../src/postgres/wal/wal-writer.ts";

const SEGMENT = 1024 * 1024;
const START = 0x1_0000_0000;

function writer(startLsn = START, previousLsn = START - 64, timelineId = 1): WalWriter {
  return new WalWriter({ version: 17, segmentSize: SEGMENT, startLsn, previousLsn, systemId: 9n, timelineId });
}

function message(length: number): Uint8Array {
  return encodeRecord({ version: 17, rmid: RMGR.LOGICALMSG, info: 0, mainData: new Uint8Array(length).fill(5) });
}

/** LSNs of the records in `bytes`, fed in pieces. */
function read(bytes: Uint8Array, startLsn = START, piece = 3000): { lsns: number[]; decoder: WalStreamDecoder } {
  const decoder = new WalStreamDecoder(startLsn, 17, SEGMENT);
  const record = new WalRecord();
  const lsns: number[] = [];
  for (let at = 0; at < bytes.length; at += piece) {
    decoder.feed(bytes.subarray(at, at + piece));
    while (decoder.next(record)) lsns.push(record.lsn);
  }
  return { lsns, decoder };
}

function codeOf(action: () => unknown): string | undefined {
  try {
    action();
  } catch (error) {
    return (error as { code?: string }).code;
  }
  return undefined;
}

describe("records that were never finished", () => {
  test("are dropped where the page says that another record took their place", () => {
    const first = writer();
    const whole = first.append(message(4000));
    first.append(message(9000));
    const beforeCrash = first.take().subarray(0, 8192);
    // The new record links to the last whole one.
    const second = writer(START + 8192, whole.lsn);
    const overwriting = second.append(message(100));
    const afterCrash = second.take();
    dataViewOf(afterCrash).setUint16(2, XLP_FIRST_IS_OVERWRITE_CONTRECORD, true);
    const { lsns, decoder } = read(Buffer.concat([beforeCrash, afterCrash]));
    expect(lsns).toEqual([whole.lsn, overwriting.lsn]);
    expect(decoder.recordEnd).toBe(overwriting.endLsn);
  });

  test("are damage where the page says nothing", () => {
    const first = writer();
    first.append(message(9000));
    const second = writer(START + 8192);
    second.append(message(100));
    expect(codeOf(() => read(Buffer.concat([first.take().subarray(0, 8192), second.take()])))).toBe("wal-bad-contrecord");
  });
});

test("after a switch record the rest of the segment is not looked at", () => {
  const log = writer();
  const places = [log.append(message(300)), log.append(encodeRecord({ version: 17, rmid: RMGR.XLOG, info: XLOG_SWITCH }))];
  log.fillSegment();
  places.push(log.append(message(300)));
  const bytes = log.take();
  bytes.fill(0xaa, 5000, SEGMENT - 1);
  const { lsns, decoder } = read(bytes, START, 100_000);
  expect(lsns).toEqual(places.map((place) => place.lsn));
  expect(lsns[2]).toBe(START + SEGMENT + 40);
  expect(decoder.recordEnd).toBe((places[2] as { endLsn: number }).endLsn);
});

test("a switch record ends at the segment", () => {
  const log = writer();
  log.append(encodeRecord({ version: 17, rmid: RMGR.XLOG, info: XLOG_SWITCH }));
  const decoder = new WalStreamDecoder(START, 17, SEGMENT);
  const record = new WalRecord();
  decoder.feed(log.take());
  expect(decoder.next(record)).toBe(true);
  expect(record.endLsn).toBe(START + SEGMENT);
});

describe("page headers", () => {
  const withChange = (change: (view: DataView) => void, at = 0): (() => unknown) => {
    const log = writer();
    log.append(message(20_000));
    const bytes = log.take();
    change(dataViewOf(bytes.subarray(at)));
    return () => read(bytes);
  };

  test("must fit version, place, segment size and what came before", () => {
    expect(codeOf(withChange((view) => view.setUint16(0, 0xd113, true)))).toBe("wal-bad-page-header");
    expect(codeOf(withChange((view) => view.setUint16(2, 0x12, true)))).toBe("wal-bad-page-header");
    expect(codeOf(withChange((view) => view.setUint32(8, 8192, true)))).toBe("wal-bad-page-header");
    expect(codeOf(withChange((view) => view.setUint32(32, 2 * SEGMENT, true)))).toBe("wal-bad-page-header");
    expect(codeOf(withChange((view) => view.setUint32(36, 4096, true)))).toBe("wal-bad-page-header");
    expect(codeOf(withChange((view) => view.setUint16(2, 2 | 1, true)))).toBe("wal-bad-contrecord");
    expect(codeOf(withChange((view) => view.setUint32(16, 11_000, true), 8192))).toBe("wal-bad-contrecord");
    expect(codeOf(withChange((view) => view.setUint32(4, 0, true), 8192))).toBe("wal-bad-page-header");
  });
});

describe("callers", () => {
  test("may start only where a record can", () => {
    expect(codeOf(() => new WalStreamDecoder(START + 4, 17, SEGMENT))).toBe("bad-start-lsn");
    expect(codeOf(() => new WalStreamDecoder(START + 24, 17, SEGMENT))).toBe("bad-start-lsn");
    expect(codeOf(() => new WalStreamDecoder(START + 8192 + 24, 17, SEGMENT))).toBeUndefined();
    expect(codeOf(() => new WalStreamDecoder(START, 17, 3_000_000))).toBe("bad-segment-size");
  });

  test("must take all records before they feed on", () => {
    const log = writer();
    log.append(message(100));
    const decoder = new WalStreamDecoder(START, 17, SEGMENT);
    decoder.feed(log.take());
    expect(() => decoder.feed(new Uint8Array(10))).toThrow(InvariantError);
  });

  test("learn of a record that links to another than the one before", () => {
    const log = writer();
    const first = log.append(message(100));
    const other = writer(first.endLsn, first.lsn - 8);
    other.append(message(100));
    expect(codeOf(() => read(Buffer.concat([log.take(), other.take()])))).toBe("wal-bad-prev-link");
  });
});
