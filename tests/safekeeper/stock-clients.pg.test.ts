/** Stock PostgreSQL clients against a safekeeper that holds a stock server's WAL: they must read the server's own bytes. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lsnToString, parseLsn, type Lsn } from "../../src/kit/lsn.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { SAFEKEEPER_DEFAULTS } from "../../src/safekeeper/config.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import { MAX_APPEND_BYTES } from "../../src/safekeeper/api/proposer-protocol.ts";
import { StockPostgres } from "../support/stock-postgres.ts";
import { platform, ProposerDriver } from "./support/driver.ts";

const PG_RECEIVEWAL = "/usr/lib/postgresql/15/bin/pg_receivewal";
const PG_WALDUMP = "/usr/lib/postgresql/15/bin/pg_waldump";
const TENANT = "11111111111111111111111111111111";
const TIMELINE = "22222222222222222222222222222222";
const SEGMENT = 16 * 1024 * 1024;

let postgres: StockPostgres;
let safekeeper: RunningSafekeeper;
let directory: string;
let wal: Buffer;
let startLsn: Lsn;
let endLsn: Lsn;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "strata-stock-clients-"));
  postgres = await StockPostgres.create({ major: 15, conf: ["max_wal_size = 1GB", "wal_keep_size = 1GB", "autovacuum = off"] });
  await postgres.start();
  const sql = postgres.sql();
  // Past segment 1: pg_receivewal takes a directory whose last segment is number 0 for an empty one.
  await sql`SELECT pg_switch_wal()`;
  await sql`CREATE TABLE before AS SELECT 1 AS one`;
  startLsn = parseLsn((await sql`SELECT pg_current_wal_flush_lsn()::text AS lsn`)[0].lsn);
  await sql`CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 20) AS pad FROM generate_series(1, 15000) g`;
  await sql`SELECT pg_switch_wal()`;
  await sql`UPDATE t SET pad = 'x' WHERE id % 3 = 0`;
  await sql`SELECT pg_switch_wal()`;
  await sql`CHECKPOINT`;
  const systemId = BigInt((await sql`SELECT system_identifier::text AS id FROM pg_control_system()`)[0].id);
  endLsn = parseLsn((await sql`SELECT pg_current_wal_flush_lsn()::text AS lsn`)[0].lsn);
  await postgres.stop("immediate");
  const all = Buffer.concat(postgres.walSegments().map((name) => postgres.readDataFile(`pg_wal/${name}`)));
  const first = parseLsn(`0/${postgres.walSegments()[0].slice(16)}`) * SEGMENT;
  wal = all.subarray(startLsn - first, endLsn - first);
  const anyPort = { host: "127.0.0.1", port: 0 };
  safekeeper = await startSafekeeper({ ...SAFEKEEPER_DEFAULTS, dataDirectory: join(directory, "sk"), nodeId: 1, pgAddress: anyPort, httpAddress: anyPort, brokerEndpoint: null }, { platform, log: new RecordingLogger() });
  await push(systemId);
}, 60_000);

afterAll(async () => {
  await safekeeper.stop();
  await postgres.remove();
  rmSync(directory, { recursive: true, force: true });
});

async function push(systemId: bigint): Promise<void> {
  const proposer = await ProposerDriver.connect({ port: safekeeper.pgPort, tenantId: TENANT, timelineId: TIMELINE });
  await proposer.greet({ pgVersion: 150018, systemId, walSegmentSizeBytes: SEGMENT });
  await proposer.requestVote(1);
  proposer.elected([{ term: 1, lsn: startLsn }], startLsn);
  for (let at = startLsn; at < endLsn; ) {
    const end = Math.min(endLsn, at + MAX_APPEND_BYTES);
    proposer.send({ kind: "append", generation: 0, term: 1, beginLsn: at, endLsn: end, commitLsn: endLsn, truncateLsn: startLsn, walData: wal.subarray(at - startLsn, end - startLsn) });
    at = end;
  }
  await proposer.flushedTo(endLsn);
  proposer.close();
}

async function run(command: string[]): Promise<string> {
  const child = Bun.spawn(command, { stdout: "pipe", stderr: "pipe", env: { ...process.env, PGOPTIONS: `-c tenant_id=${TENANT} timeline_id=${TIMELINE}` } });
  const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${err}`);
  return out + err;
}

test("a log switch and everything else of a real server's WAL is taken and durable", async () => {
  const reply = await fetch(`http://127.0.0.1:${safekeeper.httpPort}/v1/tenant/${TENANT}/timeline/${TIMELINE}`);
  expect(await reply.json()).toMatchObject({ flush_lsn: lsnToString(endLsn), commit_lsn: lsnToString(endLsn) });
});

test("pg_receivewal reads the server's bytes from the start of the first segment", async () => {
  if (!existsSync(PG_RECEIVEWAL)) return console.log(`SKIPPED: ${PG_RECEIVEWAL} is not installed`);
  const into = join(directory, "received");
  await Bun.$`mkdir ${into}`;
  // With an empty directory it would start at the server's position; so it is given a segment of zeros to follow.
  const firstSegment = Math.floor(startLsn / SEGMENT) * SEGMENT;
  const previous = `00000001${"0".repeat(8)}${(firstSegment / SEGMENT - 1).toString(16).toUpperCase().padStart(8, "0")}`;
  await Bun.write(join(into, previous), new Uint8Array(SEGMENT));
  await run([PG_RECEIVEWAL, "-h", "127.0.0.1", "-p", String(safekeeper.pgPort), "-U", "reader", "-D", into, "--no-sync", "-E", lsnToString(endLsn - 8), "--no-loop", "-n"]);
  const names = readdirSync(into).filter((name) => name !== previous).sort();
  const received = Buffer.concat(names.map((name) => readFileSync(join(into, name))));
  expect(received.subarray(startLsn - firstSegment, endLsn - firstSegment).equals(wal)).toBe(true);
  if (!existsSync(PG_WALDUMP)) return console.log(`SKIPPED: ${PG_WALDUMP} is not installed`);
  for (const name of names.filter((candidate) => candidate.endsWith(".partial"))) renameSync(join(into, name), join(into, name.replace(".partial", "")));
  const dump = await run([PG_WALDUMP, "-p", into, "-s", lsnToString(startLsn), "-e", lsnToString(endLsn), "--quiet"]);
  expect(dump).toBe("");
}, 30_000);
