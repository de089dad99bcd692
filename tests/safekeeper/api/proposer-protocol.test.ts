import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { isStrataError } from "../../../src/kit/errors.ts";
import { LSN_MAX } from "../../../src/kit/lsn.ts";
import { EMPTY_CONFIGURATION } from "../../../src/safekeeper/api/membership.ts";
import type { AcceptorMessage, ProposerMessage } from "../../../src/safekeeper/api/proposer-messages.ts";
import { type ProposerProtocolVersion, decodeAcceptorMessage, decodeProposerMessage, encodeAcceptorMessage, encodeAppendHeader, encodeProposerMessage, MAX_APPEND_BYTES } from "../../../src/safekeeper/api/proposer-protocol.ts";

const TENANT = "0123456789abcdef0123456789abcdef";
const TIMELINE = "fedcba9876543210fedcba9876543210";

const lsn = fc.integer({ min: 0, max: 2 ** 48 });
const term = fc.integer({ min: 0, max: 2 ** 40 });
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const termHistory = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 1000 }), fc.integer({ min: 0, max: 2 ** 30 })), { maxLength: 10 })
  .map((steps) => {
    const entries = [];
    let [t, at] = [0, 0];
    for (const [termStep, lsnStep] of steps) entries.push({ term: (t += termStep), lsn: (at += lsnStep) });
    return entries;
  });
const members = fc
  .uniqueArray(fc.integer({ min: 1, max: 2 ** 40 }), { minLength: 1, maxLength: 5 })
  .map((ids) => ids.map((nodeId) => ({ nodeId, host: `host-${nodeId}`, pgPort: nodeId % 65536 })));
const configuration = fc.oneof(
  fc.constant(EMPTY_CONFIGURATION),
  fc.record({ generation: fc.integer({ min: 1, max: 0xffffffff }), members, newMembers: fc.option(members) }),
);
const feedback = fc.record({
  currentTimelineSizeBytes: lsn, lastReceivedLsn: lsn, diskConsistentLsn: lsn, remoteConsistentLsn: lsn,
  replyTimestamp: fc.bigInt({ min: -(2n ** 60n), max: 2n ** 60n }), shardNumber: fc.integer({ min: 0, max: 255 }), corruptionDetected: fc.boolean(),
});
const hotStandbyFeedback = fc.record({ timestamp: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), xmin: u64, catalogXmin: u64 });

const proposerMessage: fc.Arbitrary<ProposerMessage> = fc.oneof(
  fc.record({
    kind: fc.constant("greeting" as const), tenantId: fc.constant(TENANT), timelineId: fc.constant(TIMELINE), configuration,
    pgVersion: u32, systemId: u64, walSegmentSizeBytes: u32,
  }),
  fc.record({ kind: fc.constant("vote-request" as const), generation: u32, term }),
  fc.record({ kind: fc.constant("elected" as const), generation: u32, term, startStreamingAt: lsn, termHistory }),
  fc.record({ generation: u32, term, beginLsn: lsn, commitLsn: lsn, truncateLsn: lsn, walData: fc.uint8Array({ maxLength: 100 }) })
    .map((m) => ({ kind: "append" as const, ...m, endLsn: m.beginLsn + m.walData.length })),
);
const acceptorMessage: fc.Arbitrary<AcceptorMessage> = fc.oneof(
  fc.record({ kind: fc.constant("greeting" as const), nodeId: term, configuration, term }),
  fc.record({ kind: fc.constant("vote" as const), generation: u32, term, voteGiven: fc.boolean(), flushLsn: lsn, truncateLsn: lsn, termHistory }),
  fc.record({ kind: fc.constant("append" as const), generation: u32, term, flushLsn: lsn, commitLsn: lsn, hotStandbyFeedback, pageserverFeedback: fc.option(feedback) }),
);

/** Version 2 has no place for the membership. */
function withoutMembership<T extends ProposerMessage | AcceptorMessage>(message: T): T {
  return { ...message, ...("generation" in message ? { generation: 0 } : {}), ...("configuration" in message ? { configuration: EMPTY_CONFIGURATION } : {}) };
}

describe("proposer protocol", () => {
  for (const version of [2, 3] as ProposerProtocolVersion[]) {
    test(`version ${version} gives back what was encoded`, () => {
      fc.assert(fc.property(proposerMessage, (message) => {
        const expected = version === 3 ? message : withoutMembership(message);
        expect(decodeProposerMessage(encodeProposerMessage(message, version), version)).toEqual(expected);
      }));
      fc.assert(fc.property(acceptorMessage, (message) => {
        const expected = version === 3 ? message : withoutMembership(message);
        expect(decodeAcceptorMessage(encodeAcceptorMessage(message, version), version)).toEqual(expected);
      }));
    });

    test(`version ${version}: a cut message is a typed error, never anything else`, () => {
      fc.assert(fc.property(proposerMessage, fc.double({ min: 0, max: 0.999, noNaN: true }), (message, part) => {
        const bytes = encodeProposerMessage(message, version);
        if (message.kind === "vote-request" && version === 2) return;
        expect(codeOf(() => decodeProposerMessage(bytes.subarray(0, Math.floor(bytes.length * part)), version))).toBe("truncated");
      }));
    });

    test(`version ${version}: flipped bits give a message or a typed error`, () => {
      fc.assert(fc.property(proposerMessage, fc.nat(), fc.integer({ min: 1, max: 255 }), (message, at, mask) => {
        const bytes = encodeProposerMessage(message, version).slice();
        bytes[at % bytes.length] ^= mask;
        codeOf(() => decodeProposerMessage(bytes, version));
      }), { numRuns: 500 });
    });
  }

  test("version 3 greeting, byte for byte", () => {
    const bytes = encodeProposerMessage({
      kind: "greeting", tenantId: TENANT, timelineId: TIMELINE, pgVersion: 170002, systemId: 0x0102030405060708n, walSegmentSizeBytes: 16 * 1024 * 1024,
      configuration: { generation: 7, members: [{ nodeId: 3, host: "a", pgPort: 0x1234 }], newMembers: null },
    }, 3);
    expect(Buffer.from(bytes).toString("latin1")).toBe(
      `g${TENANT}\0${TIMELINE}\0` +
      "\0\0\0\x07" + "\0\0\0\x01" + "\0\0\0\0\0\0\0\x03" + "a\0" + "\x12\x34" + "\0\0\0\0" +
      "\x00\x02\x98\x12" + "\x01\x02\x03\x04\x05\x06\x07\x08" + "\x01\0\0\0",
    );
  });

  test("version 2 append, byte for byte", () => {
    const bytes = encodeProposerMessage({
      kind: "append", generation: 9, term: 5, beginLsn: 0x1_0000_0010, endLsn: 0x1_0000_0013, commitLsn: 2, truncateLsn: 1, walData: Uint8Array.of(7, 8, 9),
    }, 2);
    expect(bytes.length).toBe(72 + 3);
    expect(Buffer.from(bytes).toString("latin1")).toBe(
      "a\0\0\0\0\0\0\0" + "\x05\0\0\0\0\0\0\0" + "\0".repeat(8) + "\x10\0\0\0\x01\0\0\0" + "\x13\0\0\0\x01\0\0\0" + "\x02\0\0\0\0\0\0\0" + "\x01\0\0\0\0\0\0\0" +
      "\0".repeat(16) + "\x07\x08\x09",
    );
  });

  test("the header alone, then the WAL, is the whole append", () => {
    const request = { kind: "append", generation: 1, term: 2, beginLsn: 100, endLsn: 103, commitLsn: 90, truncateLsn: 80, walData: Uint8Array.of(1, 2, 3) } as const;
    for (const version of [2, 3] as const) {
      expect(Buffer.concat([encodeAppendHeader(request, version), request.walData])).toEqual(Buffer.from(encodeProposerMessage(request, version)));
    }
  });

  test("refuses what cannot be real", () => {
    const append = { kind: "append", generation: 0, term: 1, beginLsn: 0, commitLsn: 0, truncateLsn: 0 } as const;
    const tooLong = encodeProposerMessage({ ...append, endLsn: MAX_APPEND_BYTES + 1, walData: new Uint8Array(MAX_APPEND_BYTES + 1) }, 3);
    expect(codeOf(() => decodeProposerMessage(tooLong, 3))).toBe("bad-proposer-message");
    const endless = encodeProposerMessage({ ...append, endLsn: LSN_MAX, walData: new Uint8Array(0) }, 3);
    expect(codeOf(() => decodeProposerMessage(endless, 3))).toBe("bad-proposer-message");
    const extra = Buffer.concat([encodeProposerMessage({ ...append, endLsn: 0, walData: new Uint8Array(0) }, 3), Buffer.of(1)]);
    expect(codeOf(() => decodeProposerMessage(extra, 3))).toBe("bad-proposer-message");
    const backwards = encodeProposerMessage({ kind: "elected", generation: 0, term: 3, startStreamingAt: 0, termHistory: [{ term: 2, lsn: 5 }, { term: 2, lsn: 6 }] }, 3);
    expect(codeOf(() => decodeProposerMessage(backwards, 3))).toBe("bad-term-history");
    expect(codeOf(() => decodeProposerMessage(Uint8Array.of(0x78), 3))).toBe("bad-proposer-message");
    expect(codeOf(() => decodeProposerMessage(Uint8Array.of(0x65, 0, 0, 0, 1, ...new Array(16).fill(0), 0xff, 0xff, 0xff, 0xff), 3))).toBe("truncated");
    expect(codeOf(() => decodeProposerMessage(Uint8Array.of(0x76, 0, 0, 0, 1, ...new Array(8).fill(0xff)), 3))).toBe("number-too-large");
  });
});

function codeOf(action: () => unknown): string | null {
  try {
    action();
    return null;
  } catch (error) {
    if (isStrataError(error)) return error.code;
    throw error;
  }
}
