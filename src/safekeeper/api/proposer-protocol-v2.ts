/**
 * Proposer protocol version 2: C structs as they lie in the proposer's memory, so little-endian; the tag is a u64
 * holding one ASCII character. Only the pageserver feedback is big-endian, as in version 3.
 *
 * | message | layout after the tag |
 * | --- | --- |
 * | → `g` greeting | u32 protocol version (2), u32 PG_VERSION_NUM, 16 bytes proposer id, u64 system id, 16 bytes timeline, 16 bytes tenant, u32 PostgreSQL timeline, u32 WAL segment size |
 * | ← `g` greeting | u64 term, u64 node id |
 * | → `v` vote request | u64 term, 16 bytes proposer id |
 * | ← `v` vote | u64 term, u64 given, u64 flush LSN, u64 truncate LSN, term history, u64 (timeline start once, now 0) |
 * | → `e` elected | u64 term, u64 start-streaming LSN, term history, u64 timeline start LSN |
 * | → `a` append | u64 term, u64 epoch start (unused), u64 begin, end, commit, truncate LSN, 16 bytes proposer id, WAL |
 * | ← `a` append | u64 term, u64 flush, commit LSN, i64 standby feedback time, u64 xmin, u64 catalog xmin [, pageserver feedback] |
 */
import { ByteReader, ByteWriter } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import { idFromBytes, idToBytes } from "../../kit/ids.ts";
import { expectEnd, readWalData } from "./append-body.ts";
import { EMPTY_CONFIGURATION, INVALID_GENERATION } from "./membership.ts";
import { encodePageserverFeedback, readPageserverFeedback } from "./pageserver-feedback.ts";
import type { AcceptorGreeting, AcceptorMessage, AppendRequest, AppendResponse, ProposerElected, ProposerGreeting, ProposerMessage, VoteRequest, VoteResponse } from "./proposer-messages.ts";
import { decodeTermHistoryLe, encodeTermHistoryLe } from "./term-history.ts";
import { readU64le } from "./u64.ts";

const TAG_GREETING = 0x67n;
const TAG_VOTE = 0x76n;
const TAG_ELECTED = 0x65n;
const TAG_APPEND = 0x61n;
const PROPOSER_ID_BYTES = 16;
const POSTGRES_TIMELINE = 1;
const HEADER_CAPACITY = 80;

export function decodeProposerMessage(bytes: Uint8Array): ProposerMessage {
  const reader = new ByteReader(bytes, "proposer message");
  const tag = reader.u64le();
  switch (tag) {
    case TAG_GREETING:
      return decodeGreeting(reader);
    case TAG_VOTE: {
      const request: VoteRequest = { kind: "vote-request", generation: INVALID_GENERATION, term: readU64le(reader, "term") };
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
  const version = reader.u32le();
  if (version !== 2) throw new StrataError("fix-input", "bad-proposer-message", `greeting says protocol version ${version} on a connection of version 2`);
  const pgVersion = reader.u32le();
  reader.skip(PROPOSER_ID_BYTES);
  const systemId = reader.u64le();
  const timelineId = idFromBytes(reader.bytes(16));
  const tenantId = idFromBytes(reader.bytes(16));
  reader.skip(4);
  const walSegmentSizeBytes = reader.u32le();
  expectEnd(reader, "greeting");
  return { kind: "greeting", tenantId, timelineId, configuration: EMPTY_CONFIGURATION, pgVersion, systemId, walSegmentSizeBytes };
}

function decodeElected(reader: ByteReader): ProposerElected {
  const term = readU64le(reader, "term");
  const startStreamingAt = reader.lsnLe();
  const termHistory = decodeTermHistoryLe(reader);
  reader.lsnLe();
  expectEnd(reader, "elected");
  return { kind: "elected", generation: INVALID_GENERATION, term, startStreamingAt, termHistory };
}

function decodeAppend(reader: ByteReader): AppendRequest {
  const term = readU64le(reader, "term");
  reader.skip(8);
  const beginLsn = reader.lsnLe();
  const endLsn = reader.lsnLe();
  const commitLsn = reader.lsnLe();
  const truncateLsn = reader.lsnLe();
  reader.skip(PROPOSER_ID_BYTES);
  const walData = readWalData(reader, beginLsn, endLsn);
  return { kind: "append", generation: INVALID_GENERATION, term, beginLsn, endLsn, commitLsn, truncateLsn, walData };
}

export function encodeProposerMessage(message: ProposerMessage): Uint8Array {
  const writer = new ByteWriter(HEADER_CAPACITY + (message.kind === "append" ? message.walData.length : 0));
  switch (message.kind) {
    case "greeting":
      writer.u64le(TAG_GREETING).u32le(2).u32le(message.pgVersion).zeros(PROPOSER_ID_BYTES).u64le(message.systemId);
      writer.bytes(idToBytes(message.timelineId)).bytes(idToBytes(message.tenantId)).u32le(POSTGRES_TIMELINE).u32le(message.walSegmentSizeBytes);
      break;
    case "vote-request":
      writer.u64le(TAG_VOTE).u64le(BigInt(message.term)).zeros(PROPOSER_ID_BYTES);
      break;
    case "elected":
      writer.u64le(TAG_ELECTED).u64le(BigInt(message.term)).lsnLe(message.startStreamingAt);
      encodeTermHistoryLe(writer, message.termHistory);
      writer.lsnLe(message.termHistory[0]?.lsn ?? 0);
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
  writer.u64le(TAG_APPEND).u64le(BigInt(request.term)).zeros(8);
  writer.lsnLe(request.beginLsn).lsnLe(request.endLsn).lsnLe(request.commitLsn).lsnLe(request.truncateLsn).zeros(PROPOSER_ID_BYTES);
}

export function decodeAcceptorMessage(bytes: Uint8Array): AcceptorMessage {
  const reader = new ByteReader(bytes, "acceptor message");
  const tag = reader.u64le();
  switch (tag) {
    case TAG_GREETING: {
      const term = readU64le(reader, "term");
      const greeting: AcceptorGreeting = { kind: "greeting", nodeId: readU64le(reader, "node id"), configuration: EMPTY_CONFIGURATION, term };
      return greeting;
    }
    case TAG_VOTE: {
      const vote: VoteResponse = {
        kind: "vote",
        generation: INVALID_GENERATION,
        term: readU64le(reader, "term"),
        voteGiven: reader.u64le() !== 0n,
        flushLsn: reader.lsnLe(),
        truncateLsn: reader.lsnLe(),
        termHistory: decodeTermHistoryLe(reader),
      };
      reader.skip(8);
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
    generation: INVALID_GENERATION,
    term: readU64le(reader, "term"),
    flushLsn: reader.lsnLe(),
    commitLsn: reader.lsnLe(),
    hotStandbyFeedback: { timestamp: reader.i64le(), xmin: reader.u64le(), catalogXmin: reader.u64le() },
    pageserverFeedback: reader.remaining > 0 ? readPageserverFeedback(reader) : null,
  };
}

export function encodeAcceptorMessage(message: AcceptorMessage): Uint8Array {
  const writer = new ByteWriter(HEADER_CAPACITY);
  switch (message.kind) {
    case "greeting":
      writer.u64le(TAG_GREETING).u64le(BigInt(message.term)).u64le(BigInt(message.nodeId));
      break;
    case "vote":
      writer.u64le(TAG_VOTE).u64le(BigInt(message.term)).u64le(message.voteGiven ? 1n : 0n).lsnLe(message.flushLsn).lsnLe(message.truncateLsn);
      encodeTermHistoryLe(writer, message.termHistory);
      writer.zeros(8);
      break;
    case "append": {
      const { hotStandbyFeedback: standby, pageserverFeedback } = message;
      writer.u64le(TAG_APPEND).u64le(BigInt(message.term)).lsnLe(message.flushLsn).lsnLe(message.commitLsn);
      writer.u64le(BigInt.asUintN(64, standby.timestamp)).u64le(standby.xmin).u64le(standby.catalogXmin);
      if (pageserverFeedback !== null) writer.bytes(encodePageserverFeedback(pageserverFeedback));
      break;
    }
  }
  return writer.finish();
}
