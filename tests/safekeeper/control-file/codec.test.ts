import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { crc32c } from "../../../src/kit/crc32c.ts";
import { isStrataError } from "../../../src/kit/errors.ts";
import { decodeControlFile, encodeControlFile } from "../../../src/safekeeper/control-file/codec.ts";
import { newTimelineState, type TimelinePersistentState } from "../../../src/safekeeper/control-file/state.ts";

const TENANT = "cf0480929707ee75372337efaa5ecf96";
const TIMELINE = "112ded66422aa5e953e5440fa5427ac4";

function sample(over: Partial<TimelinePersistentState> = {}): TimelinePersistentState {
  return {
    ...newTimelineState({
      tenantId: TENANT, timelineId: TIMELINE, pgVersion: 160004, systemId: 0x1234567887654321n, walSegmentSizeBytes: 1 << 24,
      startLsn: 0x12345600, commitLsn: 0x12345700, createdMs: 1_700_000_000_123,
    }),
    term: 42,
    termHistory: [{ term: 1, lsn: 0x12345600 }, { term: 41, lsn: 0x12345650 }],
    ...over,
  };
}

/** A file around a body given in hex. */
function fileOf(version: number, bodyHex: string): Uint8Array {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(0xcafeceef, 0);
  head.writeUInt32LE(version, 4);
  const bytes = Buffer.concat([head, Buffer.from(bodyHex.replaceAll(/\s/g, ""), "hex")]);
  const crc = Buffer.alloc(4);
  crc.writeUInt32LE(crc32c(bytes), 0);
  return Buffer.concat([bytes, crc]);
}

const u64 = (value: number | bigint): string => { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(value)); return b.toString("hex"); };
const u32 = (value: number): string => { const b = Buffer.alloc(4); b.writeUInt32LE(value); return b.toString("hex"); };
const str = (text: string): string => u64(text.length) + Buffer.from(text).toString("hex");

function codeOf(action: () => unknown): string | null {
  try {
    action();
    return null;
  } catch (error) {
    if (isStrataError(error)) return error.code;
    throw error;
  }
}

describe("control file", () => {
  test("gives back what was written, with and without a configuration", () => {
    const plain = sample();
    // Version 9 has no place for the creation time.
    expect(decodeControlFile(encodeControlFile(plain))).toEqual({ ...plain, createdMs: 0 });
    const member = (nodeId: number) => ({ nodeId, host: `sk-${nodeId}`, pgPort: 5454 });
    const full = sample({
      configuration: { generation: 7, members: [member(1), member(2)], newMembers: [member(3)] },
      partialBackup: [{ status: "uploaded", name: "000000010000000000000012_42_12345700_12345700_sk1.partial", commitLsn: 5, flushLsn: 6, term: 42 }],
      evictionState: { kind: "offloaded", flushLsn: 0x12345700 },
    });
    expect(decodeControlFile(encodeControlFile(full))).toEqual(full);
  });

  test("fields of ours take the place of the proposer's UUID, and nothing else changes", () => {
    const plain = encodeControlFile(sample({ proposerUuid: "ab".repeat(16) }));
    expect(decodeControlFile(plain)).toMatchObject({ proposerUuid: "ab".repeat(16), recovering: false, safekeeperCount: 0 });
    for (const own of [{ recovering: true, safekeeperCount: 0 }, { recovering: false, safekeeperCount: 3 }, { recovering: true, safekeeperCount: 255 }]) {
      const bytes = encodeControlFile(sample({ proposerUuid: "ab".repeat(16), ...own }));
      expect(decodeControlFile(bytes)).toEqual({ ...sample(own), createdMs: 0 });
      const differing = [...bytes.keys()].filter((at) => bytes[at] !== plain[at]);
      const uuidAt = Buffer.from(plain).indexOf("ab".repeat(16));
      expect(differing.every((at) => (at >= uuidAt && at < uuidAt + 32) || at >= bytes.length - 4)).toBe(true);
    }
  });

  test("version 9, byte for byte", () => {
    const body = str(TENANT) + str(TIMELINE) + u64(42) + u64(2) + u64(1) + u64(0x12345600) + u64(41) + u64(0x12345650) +
      u32(160004) + u64(0x1234567887654321n) + u32(1 << 24) + str("0".repeat(32)) +
      u64(0x12345600) + u64(0x12345600) + u64(0x12345700) + u64(0x12345600) + u64(0x12345600) + u64(0) + u64(0) + u64(0) + u32(0);
    expect(Buffer.from(encodeControlFile(sample())).toString("hex")).toBe(Buffer.from(fileOf(9, body)).toString("hex"));
  });

  test("older versions are upgraded", () => {
    const server = u32(140000) + u64(0x1234567887654321n);
    const v1 = u64(42) + u64(43) + server + TENANT + TIMELINE + u32(1 << 24) + TIMELINE + u64(0x49960278) + u64(0x75bcd0c) + u64(0x49960270);
    expect(decodeControlFile(fileOf(1, v1))).toMatchObject({
      tenantId: TENANT, timelineId: TIMELINE, term: 42, termHistory: [{ term: 43, lsn: 0 }], pgVersion: 140000, systemId: 0x1234567887654321n,
      walSegmentSizeBytes: 1 << 24, proposerUuid: TIMELINE, commitLsn: 0x49960278, peerHorizonLsn: 0x75bcd0c, timelineStartLsn: 0,
    });
    const v3 = u64(42) + u64(1) + u64(41) + u64(1) + server + str(TENANT) + str(TIMELINE) + u32(1 << 24) + str(TIMELINE) + u64(100) + u64(90) + u64(80);
    expect(decodeControlFile(fileOf(3, v3))).toMatchObject({ timelineId: TIMELINE, termHistory: [{ term: 41, lsn: 1 }], commitLsn: 100, peerHorizonLsn: 90 });
    const peer = u64(1) + u64(10) + u64(42) + u64(20) + u64(15);
    const head = str(TENANT) + str(TIMELINE) + u64(42) + u64(1) + u64(41) + u64(1) + server + u32(1 << 24) + str(TIMELINE);
    expect(decodeControlFile(fileOf(4, head + u64(100) + u64(70) + u64(90) + u64(60) + u64(1) + peer))).toMatchObject({ commitLsn: 100, backupLsn: 0, peerHorizonLsn: 90, remoteConsistentLsn: 0 });
    const v7 = head + u64(8) + u64(16) + u64(100) + u64(70) + u64(90) + u64(60) + u64(1) + peer;
    expect(decodeControlFile(fileOf(7, v7))).toMatchObject({ timelineStartLsn: 8, localStartLsn: 16, commitLsn: 100, backupLsn: 70, peerHorizonLsn: 90, remoteConsistentLsn: 60 });
  });

  test("a newer version is refused by name, everything else bad as corrupt", () => {
    const bytes = encodeControlFile(sample());
    expect(codeOf(() => decodeControlFile(fileOf(11, "")))).toBe("control-file-too-new");
    expect(codeOf(() => decodeControlFile(fileOf(10, "00")))).toBe("truncated");
    expect(codeOf(() => decodeControlFile(new Uint8Array(3)))).toBe("bad-control-file");
    fc.assert(fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      const flipped = bytes.slice();
      flipped[at] ^= mask;
      expect(codeOf(() => decodeControlFile(flipped))).toBe("bad-control-file");
      expect(codeOf(() => decodeControlFile(bytes.subarray(0, at)))).toBe("bad-control-file");
    }));
  });

  test("a body that lies, under a right checksum, is a typed error", () => {
    const body = Buffer.from(encodeControlFile(sample({ configuration: { generation: 1, members: [{ nodeId: 1, host: "a", pgPort: 2 }], newMembers: null } }))).subarray(8, -4);
    fc.assert(fc.property(fc.nat(body.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      const flipped = Buffer.from(body);
      flipped[at] ^= mask;
      codeOf(() => decodeControlFile(fileOf(10, flipped.toString("hex"))));
    }), { numRuns: 1000 });
  });
});
