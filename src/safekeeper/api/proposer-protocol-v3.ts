/**
 * Proposer protocol version 3. Big-endian throughout; the tag is one ASCII byte.
 *
 * | message | layout after the tag |
 * | --- | --- |
 * | → `g` greeting | C string tenant, C string timeline, configuration, u32 PG_VERSION_NUM, u64 system id, u32 WAL segment size |
 * | ← `g` greeting | u64 node id, configuration, u64 term |
 * | → `v` vote request | u32 generation, u64 term |
 * | ← `v` vote | u32 generation, u64 term, u8 given, u64 flush LSN, u64 truncate LSN, term history |
 * | → `e` elected | u32 generation, u64 term, u64 start-streaming LSN, term history |
 * | → `a` append | u32 generation, u64 term, u64 begin, end, commit, truncate LSN, WAL (end − begin bytes) |
 * | ← `a` append | u32 generation, u64 term, u64 flush, commit LSN, i64 standby feedback time, u64 xmin, u64 catalog xmin [, pageserver feedback] |
 *
 * Configuration: `membership.ts`; term history: `term-history.ts`; pageserver feedback: `pageserver-feedback.ts`.
 */
import { ByteReader, ByteWriter } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import { parseTenantId, parseTimelineId } from "../../kit/ids.ts";
import type { Lsn } from "../../kit/lsn.ts";
import { expectEnd, MAX_APPEND_BYTES, readWalData } from "./append-body.ts";
import { decodeConfiguration, encodeConfiguration } from "./membership.ts";
import { encodePageserverFeedback, readPageserverFeedback } from "./pageserver-feedback.ts";
import type { AcceptorGreeting, AcceptorMessage, AppendRequest, AppendResponse, ProposerElected, ProposerGreeting, ProposerMessage, VoteRequest, VoteResponse } from "./proposer-messages.ts";
import { decodeTermHistoryBe, encodeTermHistoryBe, type Term } from "./term-history.ts";
import { readU64be } from "./u64.ts";

const TAG_GREETING = 0x67;
const TAG_VOTE = 0x76;
const TAG_ELECTED = 0x65;
const TAG_APPEND = 0x61;
const HEADER_CAPACITY = 64;
/** Before an append's WAL: u8, u32, u64, four times u64. */
export const APPEND_HEADER_BYTES = 45;

/** What an append says of itself before its WAL. */
export interface AppendHeader {
  generation: number;
  term: Term;
  beginLsn: Lsn;
  endLsn: Lsn;
  commitLsn: Lsn;
  truncateLsn: Lsn;
}

export function decodeProposerMessage(bytes: Uint8Array): ProposerMessage {
  const reader = new ByteReader(bytes, "proposer message");
  const tag = reader.u8();
  switch (tag) {
    case TAG_GREETING:
      return decodeGreeting(reader);
    case TAG_VOTE: {
      const request: VoteRequest = { kind: "vote-request", generation: reader.u32be(), term: readU64be(reader, "term") };
      expectEnd(reader, "vote request");
      return request;
    }
    case TAG_ELECTED:
      return decodeElected(reader);
    case TAG_APPEND:
      return decodeAppend(reader);
    default:
      throw new StrataError("fix-input", "bad-proposer-message", `unknown proposer message tag ${tag}`);
  }
}

function decodeGreeting(reader: ByteReader): ProposerGreeting {
  const greeting: ProposerGreeting = {
    kind: "greeting",
    tenantId: parseTenantId(reader.cstring()),
    timelineId: parseTimelineId(reader.cstring()),
    configuration: decodeConfiguration(reader),
    pgVersion: reader.u32be(),
    systemId: reader.u64be(),
    walSegmentSizeBytes: reader.u32be(),
  };
  expectEnd(reader, "greeting");
  return greeting;
}

function decodeElected(reader: ByteReader): ProposerElected {
  const elected: ProposerElected = {
    kind: "elected",
    generation: reader.u32be(),
    term: readU64be(reader, "term"),
    startStreamingAt: reader.lsnBe(),
    termHistory: decodeTermHistoryBe(reader),
  };
  expectEnd(reader, "elected");
  return elected;
}

function decodeAppend(reader: ByteReader): AppendRequest {
  const generation = reader.u32be();
  const term = readU64be(reader, "term");
  const beginLsn = reader.lsnBe();
  const endLsn = reader.lsnBe();
  const commitLsn = reader.lsnBe();
  const truncateLsn = reader.lsnBe();
  return { kind: "append", generation, term, beginLsn, endLsn, commitLsn, truncateLsn, walData: readWalData(reader, beginLsn, endLsn) };
}

/**
 * Reads an append's header in place into `into`, for whoever takes many together. False for any other message, and for what
 * `decodeProposerMessage` refuses or takes for a sentinel: then `into` says nothing.
 */
export function readAppendHeader(message: { readonly bytes: Uint8Array; readonly start: number; readonly end: number }, into: AppendHeader): boolean {
  const { bytes, start, end } = message;
  if (end - start < APPEND_HEADER_BYTES || bytes[start] !== TAG_APPEND) return false;
  into.generation = u32At(bytes, start + 1);
  into.term = smallU64At(bytes, start + 5);
  into.beginLsn = smallU64At(bytes, start + 13);
  into.endLsn = smallU64At(bytes, start + 21);
  into.commitLsn = smallU64At(bytes, start + 29);
  into.truncateLsn = smallU64At(bytes, start + 37);
  const isWhole = into.endLsn - into.beginLsn === end - start - APPEND_HEADER_BYTES && end - start - APPEND_HEADER_BYTES <= MAX_APPEND_BYTES;
  return isWhole && into.term + into.beginLsn + into.endLsn + into.commitLsn + into.truncateLsn < Number.POSITIVE_INFINITY;
}

function u32At(bytes: Uint8Array, at: number): number {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0;
}

/** Infinity from 2^53 on. */
function smallU64At(bytes: Uint8Array, at: number): number {
  const high = u32At(bytes, at);
  return high < 0x20_0000 ? high * 0x1_0000_0000 + u32At(bytes, at + 4) : Number.POSITIVE_INFINITY;
}

export function encodeProposerMessage(message: ProposerMessage): Uint8Array {
  const writer = new ByteWriter(HEADER_CAPACITY + (message.kind === "append" ? message.walData.length : 0));
  switch (message.kind) {
    case "greeting":
      writer.u8(TAG_GREETING).cstring(message.tenantId).cstring(message.timelineId);
      encodeConfiguration(writer, message.configuration);
      writer.u32be(message.pgVersion).u64be(message.systemId).u32be(message.walSegmentSizeBytes);
      break;
    case "vote-request":
      writer.u8(TAG_VOTE).u32be(message.generation).u64be(BigInt(message.term));
      break;
    case "elected":
      writer.u8(TAG_ELECTED).u32be(message.generation).u64be(BigInt(message.term)).lsnBe(message.startStreamingAt);
      encodeTermHistoryBe(writer, message.termHistory);
      break;
    case "append":
      writeAppendHeader(writer, message);
      writer.bytes(message.walData);
      break;
  }
  return writer.finish();
}

export function encodeAppendHeader(request: AppendRequest): Uint8Array {
  const writer = new ByteWriter(HEADER_CAPACITY);
  writeAppendHeader(writer, request);
  return writer.finish();
}

function writeAppendHeader(writer: ByteWriter, request: AppendRequest): void {
  writer.u8(TAG_APPEND).u32be(request.generation).u64be(BigInt(request.term));
  writer.lsnBe(request.beginLsn).lsnBe(request.endLsn).lsnBe(request.commitLsn).lsnBe(request.truncateLsn);
}

export function decodeAcceptorMessage(bytes: Uint8Array): AcceptorMessage {
  const reader = new ByteReader(bytes, "acceptor message");
  const tag = reader.u8();
  switch (tag) {
    case TAG_GREETING: {
      const greeting: AcceptorGreeting = {
        kind: "greeting", nodeId: readU64be(reader, "node id"), configuration: decodeConfiguration(reader), term: readU64be(reader, "term"),
      };
      return greeting;
    }
    case TAG_VOTE: {
      const vote: VoteResponse = {
        kind: "vote",
        generation: reader.u32be(),
        term: readU64be(reader, "term"),
        voteGiven: reader.u8() !== 0,
        flushLsn: reader.lsnBe(),
        truncateLsn: reader.lsnBe(),
        termHistory: decodeTermHistoryBe(reader),
      };
      return vote;
    }
    case TAG_APPEND:
      return decodeAppendResponse(reader);
    default:
      throw new StrataError("fix-input", "bad-acceptor-message", `unknown acceptor message tag ${tag}`);
  }
}

function decodeAppendResponse(reader: ByteReader): AppendResponse {
  return {
    kind: "append",
    generation: reader.u32be(),
    term: readU64be(reader, "term"),
    flushLsn: reader.lsnBe(),
    commitLsn: reader.lsnBe(),
    hotStandbyFeedback: { timestamp: reader.i64be(), xmin: reader.u64be(), catalogXmin: reader.u64be() },
    pageserverFeedback: reader.remaining > 0 ? readPageserverFeedback(reader) : null,
  };
}

export function encodeAcceptorMessage(message: AcceptorMessage): Uint8Array {
  const writer = new ByteWriter(HEADER_CAPACITY);
  switch (message.kind) {
    case "greeting":
      writer.u8(TAG_GREETING).u64be(BigInt(message.nodeId));
      encodeConfiguration(writer, message.configuration);
      writer.u64be(BigInt(message.term));
      break;
    case "vote":
      writer.u8(TAG_VOTE).u32be(message.generation).u64be(BigInt(message.term)).u8(message.voteGiven ? 1 : 0);
      writer.lsnBe(message.flushLsn).lsnBe(message.truncateLsn);
      encodeTermHistoryBe(writer, message.termHistory);
      break;
    case "append": {
      const { hotStandbyFeedback: standby, pageserverFeedback } = message;
      writer.u8(TAG_APPEND).u32be(message.generation).u64be(BigInt(message.term)).lsnBe(message.flushLsn).lsnBe(message.commitLsn);
      writer.i64be(standby.timestamp).u64be(standby.xmin).u64be(standby.catalogXmin);
      if (pageserverFeedback !== null) writer.bytes(encodePageserverFeedback(pageserverFeedback));
      break;
    }
  }
  return writer.finish();
}
