/** Cancel requests and extended queries at running roles: what waits there ends when it is told to, and the session goes on. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import type { StrataError } from "../../src/kit/errors.ts";
import { lsnToString } from "../../src/kit/lsn.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { SAFEKEEPER_DEFAULTS } from "../../src/safekeeper/config.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import { decodeSenderMessage } from "../../src/wire/replication-messages.ts";
import { PgClient } from "../../src/wire/client.ts";
import { connectTo, platform, ProposerDriver, type Target } from "../safekeeper/support/driver.ts";
import { MIB, SampleWal } from "../safekeeper/support/sample-wal.ts";
import { TENANT_ID, TestPageserver } from "../support/test-pageserver.ts";

const HOST = "127.0.0.1";
const TENANT = "11".repeat(16);
const TIMELINE = "22".repeat(16);
const START = 5 * MIB + 3 * 8192 + 1000;
const ANY = { host: HOST, port: 0 };
const directory = mkdtempSync(join(tmpdir(), "strata-libpq-"));
const log = new RecordingLogger();
let safekeeper: RunningSafekeeper;
let target: Target;
let endLsn = 0;

beforeAll(async () => {
  safekeeper = await startSafekeeper({ ...SAFEKEEPER_DEFAULTS, dataDirectory: join(directory, "safekeeper"), nodeId: 1, pgAddress: ANY, httpAddress: ANY, brokerEndpoint: null }, { platform, log });
  target = { port: safekeeper.pgPort, tenantId: TENANT, timelineId: TIMELINE };
  const wal = new SampleWal(START).growTo(6 * MIB);
  endLsn = wal.endLsn;
  const proposer = await ProposerDriver.connect(target);
  await proposer.greet();
  await proposer.requestVote(3);
  proposer.elected([{ term: 3, lsn: START }], START);
  proposer.append(wal, { from: START, to: endLsn, commitLsn: START });
  await proposer.flushedTo(endLsn);
  proposer.append(wal, { from: endLsn, to: endLsn, commitLsn: endLsn });
  await proposer.flushedTo(endLsn);
  proposer.close();
}, 60_000);
afterAll(async () => {
  await safekeeper?.stop();
  rmSync(directory, { recursive: true, force: true });
  log.assertQuiet();
}, 60_000);

async function cancel(port: number, client: PgClient): Promise<void> {
  if (client.backendKey === null) throw new Error("the server gave no key");
  await PgClient.cancel(platform.network, { host: HOST, port }, client.backendKey);
}

test("a WAL sender that has sent all, and waits, is cancelled; its session answers the next command", async () => {
  const client = await connectTo(target);
  const copy = await client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(START)}`);
  for (let lsn = START; lsn < endLsn; ) {
    const message = decodeSenderMessage((await copy.read()) ?? new Uint8Array());
    if (message.kind === "wal-data") lsn = message.startLsn + message.data.length;
  }
  const ended = (async () => {
    while ((await copy.read()) !== null) continue;
  })().catch((error: StrataError) => error);
  await cancel(safekeeper.pgPort, client);
  expect(await ended).toMatchObject({ details: { sqlState: "57014" } });
  await copy.finish().catch(() => undefined);
  expect((await client.query("TIMELINE_STATUS")).rows).toEqual([[lsnToString(endLsn), lsnToString(endLsn)]]);
  await client.close();
}, 30_000);

test("a driver that prepares every query reads a safekeeper's status", async () => {
  const options = `-c timeline_id=${TIMELINE} tenant_id=${TENANT}`;
  const sql = postgres({ host: HOST, port: safekeeper.pgPort, user: "u", database: "d", max: 1, fetch_types: false, connection: { options } as object, onnotice: () => {} });
  for (let round = 0; round < 3; round++) {
    expect((await sql`TIMELINE_STATUS`).map((row) => ({ ...row }))).toEqual([{ flush_lsn: lsnToString(endLsn), commit_lsn: lsnToString(endLsn) }]);
    expect((await sql`IDENTIFY_SYSTEM`)[0]).toMatchObject({ systemid: "7", xlogpos: lsnToString(endLsn) });
    // COPY needs a simple query, and says so before anything has happened.
    expect(await sql`START_WAL_PUSH`.catch((error: postgres.PostgresError) => error)).toMatchObject({ code: "0A000" });
    expect(await sql`NONSENSE`.catch((error: postgres.PostgresError) => error)).toBeInstanceOf(postgres.PostgresError);
  }
  await sql.end();
}, 30_000);

test("a base backup that waits for an LSN which does not come is cancelled", async () => {
  const pageserver = new TestPageserver();
  try {
    await pageserver.start();
    await pageserver.attach(1);
    const timelineId = "33".repeat(16);
    expect((await pageserver.http("POST", `/v1/tenant/${TENANT_ID}/timeline`, { new_timeline_id: timelineId, pg_version: 17 })).status).toBe(201);
    const client = await pageserver.client();
    const waiting = client.copyOut(`basebackup ${TENANT_ID} ${timelineId} FF/0`).catch((error: StrataError) => error);
    expect(await Promise.race([waiting.then(() => "answered"), Bun.sleep(500).then(() => "waits")])).toBe("waits");
    await cancel(pageserver.running.pgPort, client);
    expect(await waiting).toMatchObject({ details: { sqlState: "57014" } });
    const backup = await client.copyOut(`basebackup ${TENANT_ID} ${timelineId}`);
    let bytes = 0;
    for (let chunk = await backup.read(); chunk !== null; chunk = await backup.read()) bytes += chunk.length;
    expect(bytes).toBeGreaterThan(10_000);
    await client.close();
  } finally {
    await pageserver.remove();
  }
}, 90_000);
