/** WAL backup over a real safekeeper and a directory as object storage. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lsnToString } from "../../src/kit/lsn.ts";
import { LocalDirectoryStorage } from "../../src/remote-storage/local-directory.ts";
import { EMPTY_PAGESERVER_FEEDBACK, encodePageserverFeedback } from "../../src/safekeeper/api/pageserver-feedback.ts";
import { electOffloader } from "../../src/safekeeper/backup/elect-offloader.ts";
import { SAFEKEEPER_DEFAULTS } from "../../src/safekeeper/config.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import { decodeSenderMessage } from "../../src/wire/replication-messages.ts";
import { testLogger } from "../support/test-logger.ts";
import { connectTo, platform, ProposerDriver } from "./support/driver.ts";
import { MIB, SampleWal } from "./support/sample-wal.ts";

const ID = { tenantId: "11111111111111111111111111111111", timelineId: "22222222222222222222222222222222" };
const START = 5 * MIB + 3 * 8192 + 1000;

let directory: string;
let safekeeper: RunningSafekeeper;
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "strata-backup-"));
  const anyPort = { host: "127.0.0.1", port: 0 };
  const remoteStorage = await LocalDirectoryStorage.open(join(directory, "remote"), platform);
  safekeeper = await startSafekeeper({ ...SAFEKEEPER_DEFAULTS, dataDirectory: join(directory, "sk"), nodeId: 1, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: null }, { platform, log: testLogger(), remoteStorage });
});
afterEach(async () => {
  await safekeeper.stop();
  rmSync(directory, { recursive: true, force: true });
});

async function eventually(condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 120 && !condition(); tries++) await Bun.sleep(50);
  expect(condition()).toBe(true);
}

test("committed segments are uploaded, then removed here, and still served; a deletion takes them along", async () => {
  const wal = new SampleWal(START).growTo(8 * MIB + 5000);
  const target = { port: safekeeper.pgPort, ...ID };
  const proposer = await ProposerDriver.connect(target);
  await proposer.pushNew(wal, 1);
  const remote = join(directory, "remote", ID.tenantId, ID.timelineId);
  const local = join(directory, "sk", ID.tenantId, ID.timelineId);
  const names = ["000000010000000000000005", "000000010000000000000006", "000000010000000000000007"];
  await eventually(() => existsSync(remote) && readdirSync(remote).sort().join() === names.join());
  expect(readFileSync(join(remote, names[1])).equals(wal.bytes(6 * MIB, 7 * MIB))).toBe(true);

  const pageserver = await connectTo({ ...target, applicationName: "pageserver" });
  const feedback = await pageserver.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(wal.endLsn)}`);
  feedback.write(Buffer.concat([Buffer.from("z"), Buffer.alloc(8), encodePageserverFeedback({ ...EMPTY_PAGESERVER_FEEDBACK, remoteConsistentLsn: wal.endLsn })]));
  await eventually(() => readdirSync(local).sort().join() === "000000010000000000000008.partial,safekeeper.control");

  const reader = await connectTo(target);
  const copy = await reader.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(START)}`);
  const out = Buffer.alloc(wal.endLsn - START);
  for (let at = 0; at < out.length; ) {
    const bytes = await copy.read();
    const message = decodeSenderMessage(bytes ?? new Uint8Array(0));
    if (message.kind !== "wal-data") continue;
    out.set(message.data, at);
    at += message.data.length;
  }
  expect(out.equals(wal.bytes())).toBe(true);
  for (const client of [reader, pageserver]) client.destroy();
  proposer.close();
  await fetch(`http://127.0.0.1:${safekeeper.httpPort}/v1/tenant/${ID.tenantId}/timeline/${ID.timelineId}`, { method: "DELETE" });
  await eventually(() => !existsSync(remote) || readdirSync(remote).length === 0);
}, 15_000);

test("all elect the same one, who has what comes next and is not far behind", () => {
  const candidate = (safekeeperId: number, commitLsn: number, localStartLsn = 0) => ({ safekeeperId, commitLsn, localStartLsn });
  const options = { backupLsn: 100, maxLagBytes: 50, timelineId: "00000000000000000000000000000001" };
  expect(electOffloader([candidate(3, 200), candidate(1, 190), candidate(2, 195)], options)).toBe(2);
  expect(electOffloader([candidate(2, 195), candidate(1, 190), candidate(3, 200)], options)).toBe(2);
  expect(electOffloader([candidate(1, 100), candidate(2, 200), candidate(3, 200, 150)], options)).toBe(2);
  expect(electOffloader([candidate(3, 200, 150)], options)).toBeNull();
  expect(electOffloader([], options)).toBeNull();
});
