/**
 * Every message of the proposer protocol, in both versions, byte for byte as the documented layouts have it (version 3
 * is big-endian, version 2 the C structs of a little-endian machine), beside what it means.
 */
import { EMPTY_CONFIGURATION } from "../../src/safekeeper/api/membership.ts";
import type { PageserverFeedback } from "../../src/safekeeper/api/pageserver-feedback.ts";
import type { AcceptorMessage, ProposerMessage } from "../../src/safekeeper/api/proposer-messages.ts";
import type { ProposerProtocolVersion } from "../../src/safekeeper/api/proposer-protocol.ts";
import { bytes, cstr, hex, text, u16, u32, u32le, u64, u64le, u8, zeros } from "./bytes.ts";

export const TENANT = "0123456789abcdef0123456789abcdef";
export const TIMELINE = "fedcba9876543210fedcba9876543210";

export interface Golden<M> {
  readonly name: string;
  readonly version: ProposerProtocolVersion;
  readonly message: M;
  readonly wire: Buffer;
}

const MEMBERS = [{ nodeId: 3, host: "sk-a", pgPort: 5454 }, { nodeId: 0x1_0000_0001, host: "10.0.0.2", pgPort: 65_535 }];
const NEW_MEMBERS = [{ nodeId: 9, host: "b", pgPort: 1 }];
const joint = { generation: 7, members: MEMBERS, newMembers: NEW_MEMBERS };
const jointWire = bytes(
  u32(7),
  u32(2), u64(3), cstr("sk-a"), u16(5454), u64(0x1_0000_0001n), cstr("10.0.0.2"), u16(65_535),
  u32(1), u64(9), cstr("b"), u16(1),
);
const noMembers = bytes(u32(0), u32(0), u32(0));
const history = [{ term: 2, lsn: 0x1_0000_0028 }, { term: 5, lsn: 0x1_8000_0000 }];
const historyWire = bytes(u32(2), u64(2), u64(0x1_0000_0028), u64(5), u64(0x1_8000_0000));
const historyLe = bytes(u32le(2), u64le(2), u64le(0x1_0000_0028), u64le(5), u64le(0x1_8000_0000));
const walData = Uint8Array.of(0xd1, 0x16, 0, 0xff);

export const feedback: PageserverFeedback = {
  currentTimelineSizeBytes: 0x2_0000_0001, lastReceivedLsn: 0x1_8000_0010, diskConsistentLsn: 0x1_8000_0008, remoteConsistentLsn: 0x1_8000_0000,
  replyTimestamp: -2n, shardNumber: 0, corruptionDetected: false,
};
const feedbackEntries = bytes(
  cstr("current_timeline_size"), u32(8), u64(0x2_0000_0001n),
  cstr("ps_writelsn"), u32(8), u64(0x1_8000_0010),
  cstr("ps_flushlsn"), u32(8), u64(0x1_8000_0008),
  cstr("ps_applylsn"), u32(8), u64(0x1_8000_0000),
  cstr("ps_replytime"), u32(8), u64(-2n),
);
export const feedbackWire = bytes(u8(5), feedbackEntries);
export const shardFeedbackWire = bytes(u8(7), feedbackEntries, cstr("shard_number"), u32(4), u32(3), cstr("corruption_detected"), u32(1), u8(1));

export const PROPOSER_MESSAGES: readonly Golden<ProposerMessage>[] = [
  {
    name: "greeting", version: 3,
    message: { kind: "greeting", tenantId: TENANT, timelineId: TIMELINE, configuration: joint, pgVersion: 170_002, systemId: 0xf102_0304_0506_0708n, walSegmentSizeBytes: 0x100_0000 },
    wire: bytes(text("g"), cstr(TENANT), cstr(TIMELINE), jointWire, u32(170_002), u64(0xf102_0304_0506_0708n), u32(0x100_0000)),
  },
  {
    name: "greeting without membership", version: 3,
    message: { kind: "greeting", tenantId: TENANT, timelineId: TIMELINE, configuration: EMPTY_CONFIGURATION, pgVersion: 140_013, systemId: 1n, walSegmentSizeBytes: 0x10_0000 },
    wire: bytes(text("g"), cstr(TENANT), cstr(TIMELINE), noMembers, u32(140_013), u64(1), u32(0x10_0000)),
  },
  { name: "vote request", version: 3, message: { kind: "vote-request", generation: 7, term: 0x1_0000_0005 }, wire: bytes(text("v"), u32(7), u64(0x1_0000_0005)) },
  {
    name: "elected", version: 3,
    message: { kind: "elected", generation: 7, term: 5, startStreamingAt: 0x1_8000_0000, termHistory: history },
    wire: bytes(text("e"), u32(7), u64(5), u64(0x1_8000_0000), historyWire),
  },
  {
    name: "append", version: 3,
    message: { kind: "append", generation: 7, term: 5, beginLsn: 0x1_8000_0000, endLsn: 0x1_8000_0004, commitLsn: 0x1_7fff_fff8, truncateLsn: 0x1_0000_0028, walData },
    wire: bytes(text("a"), u32(7), u64(5), u64(0x1_8000_0000), u64(0x1_8000_0004), u64(0x1_7fff_fff8), u64(0x1_0000_0028), walData),
  },
  {
    name: "heartbeat", version: 3,
    message: { kind: "append", generation: 0, term: 5, beginLsn: 16, endLsn: 16, commitLsn: 8, truncateLsn: 0, walData: new Uint8Array(0) },
    wire: bytes(text("a"), u32(0), u64(5), u64(16), u64(16), u64(8), u64(0)),
  },
  {
    name: "greeting", version: 2,
    message: { kind: "greeting", tenantId: TENANT, timelineId: TIMELINE, configuration: EMPTY_CONFIGURATION, pgVersion: 160_002, systemId: 0xf102_0304_0506_0708n, walSegmentSizeBytes: 0x100_0000 },
    wire: bytes(u64le(0x67), u32le(2), u32le(160_002), zeros(16), u64le(0xf102_0304_0506_0708n), hex(TIMELINE), hex(TENANT), u32le(1), u32le(0x100_0000)),
  },
  { name: "vote request", version: 2, message: { kind: "vote-request", generation: 0, term: 0x1_0000_0005 }, wire: bytes(u64le(0x76), u64le(0x1_0000_0005), zeros(16)) },
  {
    name: "elected", version: 2,
    message: { kind: "elected", generation: 0, term: 5, startStreamingAt: 0x1_8000_0000, termHistory: history },
    wire: bytes(u64le(0x65), u64le(5), u64le(0x1_8000_0000), historyLe, u64le(0x1_0000_0028)),
  },
  {
    name: "append", version: 2,
    message: { kind: "append", generation: 0, term: 5, beginLsn: 0x1_8000_0000, endLsn: 0x1_8000_0004, commitLsn: 0x1_7fff_fff8, truncateLsn: 0x1_0000_0028, walData },
    wire: bytes(u64le(0x61), u64le(5), zeros(8), u64le(0x1_8000_0000), u64le(0x1_8000_0004), u64le(0x1_7fff_fff8), u64le(0x1_0000_0028), zeros(16), walData),
  },
];

const standby = { timestamp: -1n, xmin: (1n << 32n) | 700n, catalogXmin: 0n };
const noStandby = { timestamp: 0n, xmin: 0n, catalogXmin: 0n };

export const ACCEPTOR_MESSAGES: readonly Golden<AcceptorMessage>[] = [
  { name: "greeting", version: 3, message: { kind: "greeting", nodeId: 3, configuration: joint, term: 6 }, wire: bytes(text("g"), u64(3), jointWire, u64(6)) },
  {
    name: "vote", version: 3,
    message: { kind: "vote", generation: 7, term: 5, voteGiven: true, flushLsn: 0x1_8000_0004, truncateLsn: 0x1_0000_0028, termHistory: history },
    wire: bytes(text("v"), u32(7), u64(5), u8(1), u64(0x1_8000_0004), u64(0x1_0000_0028), historyWire),
  },
  {
    name: "vote refused", version: 3,
    message: { kind: "vote", generation: 0, term: 9, voteGiven: false, flushLsn: 0, truncateLsn: 0, termHistory: [] },
    wire: bytes(text("v"), u32(0), u64(9), u8(0), u64(0), u64(0), u32(0)),
  },
  {
    name: "append response", version: 3,
    message: { kind: "append", generation: 7, term: 5, flushLsn: 0x1_8000_0004, commitLsn: 0x1_8000_0000, hotStandbyFeedback: standby, pageserverFeedback: null },
    wire: bytes(text("a"), u32(7), u64(5), u64(0x1_8000_0004), u64(0x1_8000_0000), u64(-1n), u64((1n << 32n) | 700n), u64(0)),
  },
  {
    name: "append response with feedback", version: 3,
    message: { kind: "append", generation: 7, term: 5, flushLsn: 8, commitLsn: 0, hotStandbyFeedback: noStandby, pageserverFeedback: feedback },
    wire: bytes(text("a"), u32(7), u64(5), u64(8), u64(0), zeros(24), feedbackWire),
  },
  {
    name: "append response with a shard's feedback", version: 3,
    message: { kind: "append", generation: 7, term: 5, flushLsn: 8, commitLsn: 0, hotStandbyFeedback: noStandby, pageserverFeedback: { ...feedback, shardNumber: 3, corruptionDetected: true } },
    wire: bytes(text("a"), u32(7), u64(5), u64(8), u64(0), zeros(24), shardFeedbackWire),
  },
  { name: "greeting", version: 2, message: { kind: "greeting", nodeId: 3, configuration: EMPTY_CONFIGURATION, term: 6 }, wire: bytes(u64le(0x67), u64le(6), u64le(3)) },
  {
    name: "vote", version: 2,
    message: { kind: "vote", generation: 0, term: 5, voteGiven: true, flushLsn: 0x1_8000_0004, truncateLsn: 0x1_0000_0028, termHistory: history },
    wire: bytes(u64le(0x76), u64le(5), u64le(1), u64le(0x1_8000_0004), u64le(0x1_0000_0028), historyLe, u64le(0)),
  },
  {
    name: "append response with feedback", version: 2,
    message: { kind: "append", generation: 0, term: 5, flushLsn: 8, commitLsn: 0, hotStandbyFeedback: standby, pageserverFeedback: feedback },
    wire: bytes(u64le(0x61), u64le(5), u64le(8), u64le(0), u64le(-1n), u64le((1n << 32n) | 700n), u64le(0), feedbackWire),
  },
];
