/** Senders held back by failpoints, and what standbys say of their horizon. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lsnToString, type Lsn } from "../../../src/kit/lsn.ts";
import { SAFEKEEPER_DEFAULTS, type SafekeeperConfig } from "../../../src/safekeeper/config.ts";
import { WalSender, WalSenders } from "../../../src/safekeeper/send-wal/wal-senders.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../../src/safekeeper/safekeeper.ts";
import type { ClientCopyStream } from "../../../src/wire/client-copy-stream.ts";
import { decodeSenderMessage } from "../../../src/wire/replication-messages.ts";
import { testLogger } from "../../support/test-logger.ts";
import { connectTo, platform, ProposerDriver } from "../support/driver.ts";
import { MIB, SampleWal } from "../support/sample-wal.ts";

const IDS = { tenantId: "1".repeat(32), timelineId: "2".repeat(32) };
const START = 5 * MIB + 3 * 8192 + 1000;

let directory: string;
let running: RunningSafekeeper;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-pausing-"));
});
afterEach(async () => {
  await running.stop();
  rmSync(directory, { recursive: true, force: true });
});

async function start(over: Partial<SafekeeperConfig>): Promise<void> {
  const anyPort = { host: "127.0.0.1", port: 0 };
  const log = testLogger();
  log.expectWarn("testing mode");
  running = await startSafekeeper({ ...SAFEKEEPER_DEFAULTS, dataDirectory: directory, nodeId: 1, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: null, ...over }, { platform, log });
}

const failpoint = (name: string, actions: string): Promise<Response> => fetch(`http://127.0.0.1:${running.httpPort}/v1/failpoints`, { method: "PUT", body: JSON.stringify([{ name, actions }]) });

/** What comes next: how far the WAL goes, or that it was a keepalive. */
async function next(copy: ClientCopyStream): Promise<Lsn | "keepalive"> {
  const bytes = await copy.read();
  if (bytes === null) throw new Error("the stream ended");
  const message = decodeSenderMessage(bytes);
  return message.kind === "wal-data" ? message.startLsn + message.data.length : "keepalive";
}

test("a paused sender holds back WAL and goes on with keepalives; a pageserver's goes on", async () => {
  await start({ testingMode: true });
  const proposer = await ProposerDriver.connect({ port: running.pgPort, ...IDS });
  const wal = new SampleWal(START).growTo(START + 30_000);
  await proposer.pushNew(wal, 1);
  expect((await failpoint("sk-pause-send", "return")).status).toBe(200);
  const read = async (applicationName: string): Promise<ClientCopyStream> => (await connectTo({ port: running.pgPort, ...IDS, applicationName })).copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(START)}`);
  const [standby, pageserver] = [await read("standby"), await read("pageserver")];
  expect(await next(pageserver)).toBe(wal.endLsn);
  expect(await next(standby)).toBe("keepalive");
  expect((await failpoint("sk-pause-send", "off")).status).toBe(200);
  let got: Lsn | "keepalive" = "keepalive";
  while (got === "keepalive") got = await next(standby);
  expect(got).toBe(wal.endLsn);
  proposer.close();
}, 10_000);

test("failpoints are for testing mode alone", async () => {
  await start({});
  expect((await failpoint("sk-pause-send", "return")).status).toBe(400);
});

test("the standby horizon is the least position that a standby has applied, of those who are there and have said one", async () => {
  await start({});
  const senders = new WalSenders();
  const at = (connectionId: number): WalSender => new WalSender({ connectionId, remote: "", applicationName: null, shard: null }, START);
  const [first, second, third] = [at(1), at(2), at(3)];
  const [, leave] = [senders.register(first), senders.register(second), senders.register(third)];
  const reply = (applyLsn: Lsn) => ({ writeLsn: applyLsn, flushLsn: applyLsn, applyLsn, timestamp: 0n, replyRequested: false });
  expect(senders.standbyHorizonLsn).toBe(0);
  senders.recordStandbyReply(first, reply(500));
  senders.recordStandbyReply(second, reply(300));
  senders.recordStandbyReply(third, reply(0));
  expect(senders.standbyHorizonLsn).toBe(300);
  leave();
  expect(senders.standbyHorizonLsn).toBe(500);
});
