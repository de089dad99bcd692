/** The proposer protocol against its documented bytes: our codec, and a running safekeeper spoken to in nothing but those bytes. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { decodePageserverFeedback, encodePageserverFeedback } from "../../src/safekeeper/api/pageserver-feedback.ts";
import { decodeAcceptorMessage, decodeProposerMessage, encodeAcceptorMessage, encodeAppendHeader, encodeProposerMessage } from "../../src/safekeeper/api/proposer-protocol.ts";
import { SAFEKEEPER_DEFAULTS } from "../../src/safekeeper/config.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import { MIB, SampleWal } from "../safekeeper/support/sample-wal.ts";
import { testLogger } from "../support/test-logger.ts";
import { bytes, cstr, hex, text, u16, u32, u32le, u64, u64le, u8, zeros } from "./bytes.ts";
import { ACCEPTOR_MESSAGES, feedback, feedbackWire, PROPOSER_MESSAGES, shardFeedbackWire, TENANT, TIMELINE } from "./proposer-messages.ts";
import { errorFields, RawLibpq } from "./raw-libpq.ts";

describe("codec", () => {
  test.each(PROPOSER_MESSAGES.map((golden) => [`version ${golden.version}: ${golden.name}`, golden] as const))("to the acceptor, %s", (_name, { message, version, wire }) => {
    expect(Buffer.from(encodeProposerMessage(message, version)).toString("hex")).toBe(wire.toString("hex"));
    expect(decodeProposerMessage(wire, version)).toEqual(message);
    if (message.kind === "append") expect(bytes(encodeAppendHeader(message, version), message.walData)).toEqual(wire);
  });

  test.each(ACCEPTOR_MESSAGES.map((golden) => [`version ${golden.version}: ${golden.name}`, golden] as const))("to the proposer, %s", (_name, { message, version, wire }) => {
    expect(Buffer.from(encodeAcceptorMessage(message, version)).toString("hex")).toBe(wire.toString("hex"));
    expect(decodeAcceptorMessage(wire, version)).toEqual(message);
  });

  test("every message of both versions is here", () => {
    const kinds = (all: readonly { version: number; message: { kind: string } }[], version: number): string[] => [...new Set(all.filter((one) => one.version === version).map((one) => one.message.kind))].sort();
    for (const version of [2, 3]) {
      expect(kinds(PROPOSER_MESSAGES, version)).toEqual(["append", "elected", "greeting", "vote-request"]);
      expect(kinds(ACCEPTOR_MESSAGES, version)).toEqual(["append", "greeting", "vote"]);
    }
  });

  test("pageserver feedback; keys nobody knows yet are passed over", () => {
    expect(bytes(encodePageserverFeedback(feedback))).toEqual(feedbackWire);
    expect(decodePageserverFeedback(feedbackWire)).toEqual(feedback);
    const sharded = { ...feedback, shardNumber: 3, corruptionDetected: true };
    expect(bytes(encodePageserverFeedback(sharded))).toEqual(shardFeedbackWire);
    expect(decodePageserverFeedback(shardFeedbackWire)).toEqual(sharded);
    const later = bytes(u8(6), cstr("not_thought_of_yet"), u32(3), text("abc"), feedbackWire.subarray(1));
    expect(decodePageserverFeedback(later)).toEqual(feedback);
  });
});

describe("a running safekeeper", () => {
  const START = 5 * MIB + 3 * 8192 + 1000;
  let directory: string;
  let safekeeper: RunningSafekeeper;
  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "strata-conformance-"));
    const anyPort = { host: "127.0.0.1", port: 0 };
    safekeeper = await startSafekeeper(
      { ...SAFEKEEPER_DEFAULTS, dataDirectory: directory, nodeId: 3, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: null },
      { platform: realPlatform(), log: testLogger() },
    );
  });
  afterEach(async () => {
    await safekeeper.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  async function session(extra: Record<string, string> = {}): Promise<RawLibpq> {
    const { raw, frames } = await RawLibpq.session(safekeeper.pgPort, { user: "cloud_admin", database: "replication", options: `-c timeline_id=${TIMELINE} tenant_id=${TENANT}`, ...extra });
    expect(frames[0]).toEqual({ tag: "R", body: bytes(u32(0)) });
    expect(frames.at(-1)).toEqual({ tag: "Z", body: Buffer.from("I") });
    return raw;
  }

  async function push(version: 2 | 3): Promise<RawLibpq> {
    const raw = await session();
    raw.query(`START_WAL_PUSH (proto_version '${version}', allow_timeline_creation 'true')`);
    expect(await raw.expect("W")).toEqual(bytes(u8(0), u16(0)));
    return raw;
  }

  const standbyNone = zeros(24);

  test("version 3: greeting, vote, elected, append, heartbeat, in bytes", async () => {
    const wal = new SampleWal(START).growTo(START + 20_000);
    const raw = await push(3);
    const noMembers = bytes(u32(0), u32(0), u32(0));
    raw.copyData(text("g"), cstr(TENANT), cstr(TIMELINE), noMembers, u32(170_002), u64(7), u32(MIB));
    expect(await raw.expect("d")).toEqual(bytes(text("g"), u64(3), noMembers, u64(0)));
    raw.copyData(text("v"), u32(0), u64(4));
    expect(await raw.expect("d")).toEqual(bytes(text("v"), u32(0), u64(4), u8(1), u64(0), u64(0), u32(0)));
    // The same term again is not given twice.
    raw.copyData(text("v"), u32(0), u64(4));
    expect(await raw.expect("d")).toEqual(bytes(text("v"), u32(0), u64(4), u8(0), u64(0), u64(0), u32(0)));
    raw.copyData(text("e"), u32(0), u64(4), u64(START), u32(1), u64(4), u64(START));
    raw.copyData(text("a"), u32(0), u64(4), u64(START), u64(wal.endLsn), u64(START), u64(START), wal.bytes());
    expect(await raw.expect("d")).toEqual(bytes(text("a"), u32(0), u64(4), u64(wal.endLsn), u64(START), standbyNone));
    raw.copyData(text("a"), u32(0), u64(4), u64(wal.endLsn), u64(wal.endLsn), u64(wal.endLsn), u64(START));
    const beat = await raw.expect("d");
    expect(beat.subarray(0, 21)).toEqual(bytes(text("a"), u32(0), u64(4), u64(wal.endLsn)));
    expect(beat.length).toBe(1 + 4 + 5 * 8 + 8);
    raw.close();
  });

  test("version 2: the same in C structs", async () => {
    const wal = new SampleWal(START).growTo(START + 20_000);
    const raw = await push(2);
    const uuid = hex("00112233445566778899aabbccddeeff");
    raw.copyData(u64le(0x67), u32le(2), u32le(170_002), uuid, u64le(7), hex(TIMELINE), hex(TENANT), u32le(1), u32le(MIB));
    expect(await raw.expect("d")).toEqual(bytes(u64le(0x67), u64le(0), u64le(3)));
    raw.copyData(u64le(0x76), u64le(4), uuid);
    expect(await raw.expect("d")).toEqual(bytes(u64le(0x76), u64le(4), u64le(1), u64le(0), u64le(0), u32le(0), u64le(0)));
    raw.copyData(u64le(0x65), u64le(4), u64le(START), u32le(1), u64le(4), u64le(START), u64le(START));
    raw.copyData(u64le(0x61), u64le(4), u64le(START), u64le(START), u64le(wal.endLsn), u64le(START), u64le(START), uuid, wal.bytes());
    expect(await raw.expect("d")).toEqual(bytes(u64le(0x61), u64le(4), u64le(wal.endLsn), u64le(START), standbyNone));
    raw.close();

    const again = await push(2);
    again.copyData(u64le(0x67), u32le(2), u32le(170_002), uuid, u64le(7), hex(TIMELINE), hex(TENANT), u32le(1), u32le(MIB));
    expect(await again.expect("d")).toEqual(bytes(u64le(0x67), u64le(4), u64le(3)));
    again.copyData(u64le(0x76), u64le(5), uuid);
    expect(await again.expect("d")).toEqual(bytes(u64le(0x76), u64le(5), u64le(1), u64le(wal.endLsn), u64le(START), u32le(1), u64le(4), u64le(START), u64le(0)));
    again.close();
  });

  test("version 3 with a membership: its generation comes back in every answer, another one is refused", async () => {
    const configuration = bytes(u32(2), u32(1), u64(3), cstr("here"), u16(5454), u32(0));
    const greeting = bytes(text("g"), cstr(TENANT), cstr(TIMELINE), configuration, u32(170_002), u64(7), u32(MIB));
    const raw = await push(3);
    raw.copyData(greeting);
    expect(await raw.expect("d")).toEqual(bytes(text("g"), u64(3), configuration, u64(0)));
    raw.copyData(text("v"), u32(2), u64(1));
    expect(await raw.expect("d")).toEqual(bytes(text("v"), u32(2), u64(1), u8(1), u64(0), u64(0), u32(0)));
    raw.copyData(text("e"), u32(2), u64(1), u64(START), u32(1), u64(1), u64(START));
    const wal = new SampleWal(START).growTo(START + 2000);
    raw.copyData(text("a"), u32(2), u64(1), u64(START), u64(wal.endLsn), u64(START), u64(START), wal.bytes());
    expect((await raw.expect("d")).subarray(0, 21)).toEqual(bytes(text("a"), u32(2), u64(1), u64(wal.endLsn)));
    raw.copyData(text("a"), u32(1), u64(1), u64(wal.endLsn), u64(wal.endLsn), u64(wal.endLsn), u64(START));
    expect(errorFields(await raw.expect("E")).M).toContain("membership generation 1 in the message, 2 here");
    raw.close();
  });

  test("IDENTIFY_SYSTEM, TIMELINE_STATUS, START_REPLICATION, feedback: what readers see and say", async () => {
    const wal = new SampleWal(START).growTo(START + 20_000);
    const raw = await push(3);
    const noMembers = bytes(u32(0), u32(0), u32(0));
    raw.copyData(text("g"), cstr(TENANT), cstr(TIMELINE), noMembers, u32(170_002), u64(0xf000_0000_0000_0007n), u32(MIB));
    await raw.expect("d");
    raw.copyData(text("v"), u32(0), u64(1));
    await raw.expect("d");
    raw.copyData(text("e"), u32(0), u64(1), u64(START), u32(1), u64(1), u64(START));
    raw.copyData(text("a"), u32(0), u64(1), u64(START), u64(wal.endLsn), u64(wal.endLsn), u64(START), wal.bytes());
    await raw.expect("d");

    const reader = await session({ application_name: "pageserver" });
    const position = `0/${wal.endLsn.toString(16).toUpperCase()}`;
    const column = (name: string, oid: number, size: number) => bytes(cstr(name), u32(0), u16(0), u32(oid), u16(size), u32(0xffff_ffff), u16(0));
    const textColumn = (name: string) => column(name, 25, 0xffff);
    const value = (said: string) => bytes(u32(said.length), text(said));
    reader.query("IDENTIFY_SYSTEM");
    expect(await reader.expect("T")).toEqual(bytes(u16(4), textColumn("systemid"), column("timeline", 23, 4), textColumn("xlogpos"), textColumn("dbname")));
    expect(await reader.expect("D")).toEqual(bytes(u16(4), value(String(0xf000_0000_0000_0007n)), value("1"), value(position), u32(0xffff_ffff)));
    expect(await reader.expect("C")).toEqual(bytes(cstr("IDENTIFY_SYSTEM")));
    await reader.expect("Z");
    reader.query("TIMELINE_STATUS");
    expect(await reader.expect("T")).toEqual(bytes(u16(2), textColumn("flush_lsn"), textColumn("commit_lsn")));
    expect(await reader.expect("D")).toEqual(bytes(u16(2), value(position), value(position)));
    expect(await reader.expect("C")).toEqual(bytes(cstr("TIMELINE_STATUS")));
    await reader.expect("Z");

    reader.query(`START_REPLICATION PHYSICAL 0/${START.toString(16).toUpperCase()} (term='1')`);
    expect(await reader.expect("W")).toEqual(bytes(u8(0), u16(0)));
    const beforeMicros = (BigInt(Date.now()) - 946_684_800_000n) * 1000n;
    const data = await reader.expect("d");
    expect(data.subarray(0, 17)).toEqual(bytes(text("w"), u64(START), u64(wal.endLsn)));
    const sentMicros = data.readBigInt64BE(17);
    expect(sentMicros > beforeMicros - 60_000_000n && sentMicros < beforeMicros + 60_000_000n).toBe(true);
    expect(data.subarray(25).equals(Buffer.from(wal.bytes()))).toBe(true);
    // Nothing more to send: a keepalive that asks for a reply, within its second.
    const keepalive = await reader.expect("d");
    expect(keepalive.subarray(0, 9)).toEqual(bytes(text("k"), u64(wal.endLsn)));
    expect([keepalive.length, keepalive[17]]).toEqual([18, 1]);

    reader.copyData(text("z"), u64(feedbackWire.length), feedbackWire);
    const told = await raw.expect("d");
    expect(told.subarray(0, 21)).toEqual(bytes(text("a"), u32(0), u64(1), u64(wal.endLsn)));
    expect(told.subarray(1 + 4 + 3 * 8 + 24)).toEqual(feedbackWire);
    reader.close();
    raw.close();
  });

  test("a command in no grammar is an ErrorResponse, and the session goes on", async () => {
    const raw = await session();
    raw.query("START_REPLICATION LOGICAL");
    const error = errorFields(await raw.expect("E"));
    expect([error.S, error.V, error.C]).toEqual(["ERROR", "ERROR", "42601"]);
    await raw.expect("Z");
    raw.query("TIMELINE_STATUS");
    expect((await raw.untilReady()).map((frame) => frame.tag)).toEqual(["T", "C", "Z"]);
    raw.close();
  });
});
