/**
 * Records of resource managers nobody here knows, from a proposer through safekeeper, broker and ingest to a page
 * request: whoever reads a page they changed gets an error with manager and LSN, never a page without the change.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunningBroker, startBroker } from "../../../src/broker/broker.ts";
import { BROKER_DEFAULTS } from "../../../src/broker/config.ts";
import { type Lsn, lsnToString, parseLsn } from "../../../src/kit/lsn.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import { RMGR } from "../../../src/postgres/wal/constants.ts";
import { type BlockSpec, encodeRecord } from "../../../src/postgres/wal/encode-record.ts";
import { WalWriter } from "../../../src/postgres/wal/wal-writer.ts";
import { SAFEKEEPER_DEFAULTS } from "../../../src/safekeeper/config.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../../src/safekeeper/safekeeper.ts";
import { bytes, u32, u64, u8 } from "../../conformance/bytes.ts";
import { RawLibpq } from "../../conformance/raw-libpq.ts";
import { platform, ProposerDriver } from "../../safekeeper/support/driver.ts";
import { TENANT_ID, TestPageserver } from "../../support/test-pageserver.ts";

const TIMELINE = "aa".repeat(16);
const SEGMENT = 16 * 1024 * 1024;
const CUSTOM = 200;
const REL = { spcOid: 1663, dbOid: 5, relNumber: 1259, fork: 0 };
const NEW_REL = { ...REL, relNumber: 888_888 };
const directory = mkdtempSync(join(tmpdir(), "strata-unsupported-"));
const anyPort = { host: "127.0.0.1", port: 0 };
let broker: RunningBroker;
let safekeeper: RunningSafekeeper;
let pageserver: TestPageserver;
let proposer: ProposerDriver;
let writer: WalWriter;
let sentLsn: Lsn;

beforeAll(async () => {
  const log = new RecordingLogger();
  broker = await startBroker({ ...BROKER_DEFAULTS, listenPort: 0 }, { platform, log, version: "test" });
  const brokerEndpoint = `http://127.0.0.1:${broker.port}`;
  safekeeper = await startSafekeeper({ ...SAFEKEEPER_DEFAULTS, dataDirectory: directory, nodeId: 1, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint }, { platform, log });
  pageserver = new TestPageserver({ brokerEndpoint });
  await pageserver.start();
  await pageserver.attach(1);
  const created = await pageserver.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: TIMELINE, pg_version: 17 });
  expect(created.status).toBe(201);
  const info = created.json as { last_record_lsn: string; prev_record_lsn: string };
  sentLsn = parseLsn(info.last_record_lsn);
  writer = new WalWriter({ version: 17, segmentSize: SEGMENT, startLsn: sentLsn, previousLsn: parseLsn(info.prev_record_lsn), systemId: 7n, timelineId: 1 });
  proposer = await ProposerDriver.connect({ port: safekeeper.pgPort, tenantId: TENANT_ID, timelineId: TIMELINE });
  await proposer.greet({ walSegmentSizeBytes: SEGMENT });
  await proposer.requestVote(1);
  proposer.elected([{ term: 1, lsn: sentLsn }], sentLsn);
}, 60_000);

afterAll(async () => {
  proposer.close();
  await pageserver.remove();
  await safekeeper.stop();
  await broker.stop();
  rmSync(directory, { recursive: true, force: true });
});

/** Sends one record, durable and committed when it returns; its start and end. */
async function send(rmid: number, blocks: readonly BlockSpec[], info = 0x10): Promise<{ lsn: Lsn; endLsn: Lsn }> {
  const place = writer.append(encodeRecord({ version: 17, rmid, info, mainData: new Uint8Array(8), blocks }));
  const wal = writer.take().slice();
  const message = { kind: "append", generation: 0, term: 1, beginLsn: sentLsn, endLsn: sentLsn + wal.length, commitLsn: sentLsn + wal.length, truncateLsn: 0, walData: wal } as const;
  proposer.send(message);
  sentLsn += wal.length;
  await proposer.flushedTo(sentLsn);
  proposer.send({ ...message, beginLsn: sentLsn, endLsn: sentLsn, commitLsn: sentLsn, walData: new Uint8Array(0) });
  await proposer.flushedTo(sentLsn);
  return place;
}

/** The page as of an LSN, which is waited for, or the words of the error response. */
async function read(rel: { relNumber: number }, block: number, lsn: Lsn): Promise<Buffer | string> {
  const { raw } = await RawLibpq.session(pageserver.running.pgPort, { user: "u", database: "d" });
  raw.query(`pagestream_v3 ${TENANT_ID} ${TIMELINE}`);
  await raw.expect("W");
  raw.copyData(bytes(u8(2), u64(1), u64(lsn), u64(lsn), u32(1663), u32(5), u32(rel.relNumber), u8(0), u32(block)));
  const body = await raw.expect("d");
  raw.close();
  return body[0] === 103 ? body.toString("utf8", 25, body.length - 1) : body.subarray(-8192);
}

test("a change by an unknown manager: an error at its LSN and above, the page as it was below, all other pages as ever", async () => {
  const beforeLsn = sentLsn;
  const before = await read(REL, 0, beforeLsn);
  const neighbour = await read(REL, 1, beforeLsn);
  expect(before).toBeInstanceOf(Buffer);
  const { endLsn } = await send(CUSTOM, [{ id: 0, ...REL, blockNumber: 0 }]);
  const said = await read(REL, 0, endLsn);
  // Whole, so that the words stand there once.
  expect(said).toBe(`key 000000067F00000005000004EB0000000000, record ending at ${lsnToString(endLsn)}: no redo for resource manager custom200 (200), info 0x10, ending at ${lsnToString(endLsn)}, block 0`);
  expect(await read(REL, 0, beforeLsn)).toEqual(before);
  expect(await read(REL, 1, endLsn)).toEqual(neighbour);

  // Later changes by a manager that is known do not paper over it.
  const heap = await send(RMGR.HEAP, [{ id: 0, ...REL, blockNumber: 0 }], 0x70);
  expect(await read(REL, 0, heap.endLsn)).toContain(`custom${CUSTOM}`);

  // Nor do layers, a restart, or compaction into images.
  const path = `/v1/tenant/${TENANT_ID}/timeline/${TIMELINE}`;
  expect((await pageserver.http("PUT", `${path}/checkpoint?compact=false&wait_until_uploaded=true`)).status).toBe(200);
  expect(await read(REL, 0, heap.endLsn)).toContain(`custom${CUSTOM}`);
  const compacted = await pageserver.http("PUT", `${path}/compact?force_l0_compaction=true&force_image_layer_creation=true`);
  // An image without the change is not made either.
  expect([compacted.status, JSON.stringify(compacted.json)]).toEqual([503, expect.stringContaining(`custom${CUSTOM}`)]);
  expect(await read(REL, 0, heap.endLsn)).toContain(`custom${CUSTOM}`);
  expect(await read(REL, 1, heap.endLsn)).toEqual(neighbour);

  // A whole new image is a new beginning.
  const page = Buffer.from(before as Buffer);
  page.writeUInt16LE(0x0004, 10);
  const image = await send(RMGR.XLOG, [{ id: 0, ...REL, blockNumber: 0, image: { page, holeOffset: 0, holeLength: 0, apply: true } }], 0xb0);
  const after = await read(REL, 0, image.endLsn);
  expect((after as Buffer).subarray(8)).toEqual(page.subarray(8));
  expect(await read(REL, 0, heap.endLsn)).toContain(`custom${CUSTOM}`);
}, 30_000);

test("a built-in manager that changes no pages in real logs is named as PostgreSQL names it", async () => {
  const { endLsn } = await send(RMGR.COMMIT_TS, [{ id: 0, ...REL, blockNumber: 2 }], 0x00);
  const said = await read(REL, 2, endLsn);
  expect(said).toContain("CommitTs (18)");
  expect(said).toContain(lsnToString(endLsn));
}, 30_000);

test("a page that an unknown manager made: it counts for the relation's size, and its content is an error", async () => {
  const { endLsn } = await send(CUSTOM, [{ id: 0, ...NEW_REL, blockNumber: 1, willInit: true }]);
  expect(await read(NEW_REL, 1, endLsn)).toContain(`custom${CUSTOM}`);
  // The page between was never written: PostgreSQL has zeros there.
  expect(await read(NEW_REL, 0, endLsn)).toEqual(Buffer.alloc(8192));
}, 30_000);
