import { expect, test } from "bun:test";
import { NO_LAG_LIMITS, PageserverPositions } from "../../../src/compute/proposer/pageserver-positions.ts";
import { EMPTY_PAGESERVER_FEEDBACK, type PageserverFeedback } from "../../../src/safekeeper/api/pageserver-feedback.ts";

const said = (at: number, values: Partial<PageserverFeedback> = {}): PageserverFeedback => ({
  ...EMPTY_PAGESERVER_FEEDBACK, lastReceivedLsn: 3000, diskConsistentLsn: 2000, remoteConsistentLsn: 1000, currentTimelineSizeBytes: 77, replyTimestamp: BigInt(at), ...values,
});

test("the newest word of a shard counts, also when it is less; an old one that is repeated does not", () => {
  const positions = new PageserverPositions();
  expect([positions.known, positions.lastReceivedLsn, positions.sizeBytes]).toEqual([false, 0, null]);
  expect(positions.heard(said(0))).toBe(false);
  expect(positions.heard(said(5))).toBe(true);
  expect(positions.heard(said(4, { lastReceivedLsn: 9000 }))).toBe(false);
  expect(positions.heard(said(5))).toBe(false);
  expect(positions.lastReceivedLsn).toBe(3000);
  expect(positions.heard(said(6, { lastReceivedLsn: 2500 }))).toBe(true);
  expect(positions.lastReceivedLsn).toBe(2500);
});

test("the timeline is where its last shard is; its size is what shard 0 says", () => {
  const positions = new PageserverPositions();
  positions.heard(said(1, { shardNumber: 1, currentTimelineSizeBytes: 1, lastReceivedLsn: 4000, diskConsistentLsn: 100 }));
  expect(positions.sizeBytes).toBeNull();
  positions.heard(said(1));
  expect([positions.lastReceivedLsn, positions.diskConsistentLsn, positions.remoteConsistentLsn, positions.sizeBytes]).toEqual([3000, 100, 1000, 77]);
});

test("shards that cannot be are not kept", () => {
  const positions = new PageserverPositions();
  for (let shardNumber = 0; shardNumber < 1000; shardNumber++) positions.heard(said(1, { shardNumber, lastReceivedLsn: shardNumber < 256 ? 3000 : 1 }));
  expect(positions.lastReceivedLsn).toBe(3000);
});

test("each limit bounds what may be acknowledged; a position that is not known bounds nothing", () => {
  const positions = new PageserverPositions();
  const limits = { writeBytes: 10, flushBytes: 2000, applyBytes: 5000 };
  expect(positions.ceiling(limits)).toBe(Number.POSITIVE_INFINITY);
  positions.heard(said(1));
  expect(positions.ceiling(limits)).toBe(3010);
  expect(positions.ceiling({ ...limits, writeBytes: null })).toBe(4000);
  expect(positions.ceiling({ ...NO_LAG_LIMITS, applyBytes: 500 })).toBe(1500);
  expect(positions.ceiling(NO_LAG_LIMITS)).toBe(Number.POSITIVE_INFINITY);
  positions.heard(said(2, { remoteConsistentLsn: 0 }));
  expect(positions.ceiling({ ...NO_LAG_LIMITS, applyBytes: 500 })).toBe(Number.POSITIVE_INFINITY);
});
