import { afterEach, describe, expect, test } from "bun:test";
import type { StrataError } from "../../../src/kit/errors.ts";
import { Candidacy } from "../../../src/compute/proposer/candidacy.ts";
import { LocalWal } from "../../../src/compute/proposer/local-wal.ts";
import { type SettleOptions, settleLog } from "../../../src/compute/proposer/settle-log.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { EMPTY_CONFIGURATION } from "../../../src/safekeeper/api/membership.ts";
import { FakeSafekeeper } from "../fake-storage.ts";
import { SEGMENT, TENANT, TIMELINE } from "./memory-acceptor.ts";

const platform = realPlatform();
const log = new RecordingLogger();
const START = 0x3000;
const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function rig(majors: readonly number[] = [17, 17, 17]) {
  const safekeepers = await Promise.all(majors.map((major, at) => new FakeSafekeeper(platform, log, { nodeId: at + 1, major }).start()));
  cleanups.push(...safekeepers.map((safekeeper) => () => safekeeper.stop()));
  const identity = { tenantId: TENANT, timelineId: TIMELINE, systemId: 7n, pgVersion: 170010, walSegmentSizeBytes: SEGMENT };
  const options: SettleOptions = { identity, safekeepers: safekeepers.map(({ address }) => address), platform, log };
  return { safekeepers, options };
}

/** A proposer that writes `bytes` after START to those safekeepers that are up. */
async function write(options: SettleOptions, bytes: number): Promise<void> {
  const wal = new LocalWal({ files: platform.files, walDirectory: "/nonexistent", segmentSizeBytes: SEGMENT, startLsn: START });
  wal.append(START, new Uint8Array(bytes).fill(5));
  const done = Promise.withResolvers<void>();
  const candidacy = new Candidacy({
    ...options, configuration: EMPTY_CONFIGURATION, mode: { kind: "run", startLsn: START, availableLsn: wal.endLsn, previousTerm: null }, localWal: wal,
    onEffect: (effect) => void (effect.kind === "committed" && effect.lsn === wal.endLsn && done.resolve()),
  });
  candidacy.start();
  await done.promise;
  candidacy.heartbeatNow();
  await Bun.sleep(50);
  await candidacy.close();
}

describe("settling the log", () => {
  test("nothing anywhere: 0", async () => {
    const { options } = await rig();
    expect(await settleLog(options)).toBe(0);
  });

  test("all at one place: no election is held", async () => {
    const { options, safekeepers } = await rig();
    await write(options, 1000);
    const terms = safekeepers.map(({ acceptor }) => acceptor.acceptor.persisted.term);
    expect(await settleLog(options)).toBe(START + 1000);
    expect(safekeepers.map(({ acceptor }) => acceptor.acceptor.persisted.term)).toEqual(terms);
  });

  test("one down: an election among the others finds the same place; the third takes part when it is back", async () => {
    const { options, safekeepers } = await rig();
    await write(options, 1000);
    await safekeepers[0].stop();
    expect(await settleLog(options)).toBe(START + 1000);
    await safekeepers[0].start();
    expect(await settleLog(options)).toBe(START + 1000);
  });

  test("one far behind is brought up from the other's log", async () => {
    const { options, safekeepers } = await rig();
    // One that never had any WAL could as well have lost its disk: with the second one down it would not be enough.
    await write(options, 0);
    await safekeepers[2].stop();
    await write(options, 900_000);
    await safekeepers[1].stop();
    await safekeepers[2].start();
    expect(await settleLog(options)).toBe(START + 900_000);
    expect(Buffer.compare(safekeepers[2].acceptor.log.bytes, safekeepers[0].acceptor.log.bytes)).toBe(0);
  });

  test("without a majority it gives up in time and says why", async () => {
    const { options } = await rig([17, 16, 15]);
    const error = await settleLog({ ...options, timeoutMs: 600 }).catch((caught: StrataError) => caught);
    expect(error).toMatchObject({ kind: "unavailable", code: "settle-timeout", message: expect.stringContaining("cannot go on with the WAL of") });
  });

  test("stops when told to", async () => {
    const { options } = await rig([16, 16, 16]);
    const stop = new AbortController();
    const settling = settleLog({ ...options, signal: stop.signal });
    setTimeout(() => stop.abort(), 100);
    await expect(settling).rejects.toThrow("settling the log was broken off");
    await expect(settleLog({ ...options, signal: stop.signal })).rejects.toThrow("broken off");
  });
});

test("local WAL that is gone before a quorum had it is noticed", async () => {
  const { options } = await rig();
  const wal = new LocalWal({ files: platform.files, walDirectory: "/nonexistent", segmentSizeBytes: SEGMENT, startLsn: START, bufferMaxBytes: 1000 });
  for (let at = 0; at < 10; at++) wal.append(wal.endLsn, new Uint8Array(500));
  const lost = Promise.withResolvers<StrataError>();
  const candidacy = new Candidacy({
    ...options, configuration: EMPTY_CONFIGURATION, mode: { kind: "run", startLsn: START, availableLsn: wal.endLsn, previousTerm: null }, localWal: wal,
    onEffect: () => {}, onWalLost: lost.resolve,
  });
  candidacy.start();
  cleanups.push(() => candidacy.close());
  expect(await lost.promise).toMatchObject({ code: "wal-removed" });
});
