/**
 * A bit flipped in committed WAL, on every safekeeper: the pageserver stops before it with an error that says what is wrong,
 * other timelines go on, nothing is deleted, and one mended safekeeper is enough to go on.
 */
import { expect, test } from "bun:test";
import { closeSync, openSync, readdirSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type Lsn, parseLsn } from "../../src/kit/lsn.ts";
import { walFileName } from "../../src/pageserver/import/import-datadir.ts";
import { TestCluster } from "../support/dev-cluster.ts";
import { connect } from "../verify/durability/writers.ts";

const SEGMENT_BYTES = 16 * 1024 * 1024;
const MESSAGE_TIMEOUT_MS = 90_000;
const ROWS = 20_000;

test("damaged WAL stops its timeline with an error, no other; mended, it goes on", async () => {
  const cluster = await TestCluster.start({ pgVersion: 17, settings: { shared_buffers: "16MB" } });
  try {
    const other = await makeBranch(cluster);
    await cluster.kill(cluster.pageserver);
    const { from, to } = await writeRows(cluster);
    await cluster.compute.stop();
    await Promise.all(cluster.safekeepers.map((safekeeper) => safekeeper.stop()));
    await cluster.killAll();
    const damaged = Math.floor((from + to) / 2);
    for (const directory of cluster.safekeeperDirectories) flipBit(cluster, { directory, lsn: damaged });
    const files = cluster.safekeeperDirectories.map((directory) => walFiles(cluster, directory));

    await cluster.startStorage();
    await until(() => cluster.pageserver.log().includes("WAL is damaged"), MESSAGE_TIMEOUT_MS);
    expect(cluster.pageserver.log()).toMatch(/WAL is damaged.* code=wal-[a-z-]+ error="WAL record at /);
    const stopped = await lastRecord(cluster, cluster.cluster.branches[0].timelineId);
    expect(stopped).toBeGreaterThanOrEqual(from);
    expect(stopped).toBeLessThanOrEqual(damaged);
    expect(await lastRecord(cluster, other)).toBeGreaterThan(0);
    expect(cluster.safekeeperDirectories.map((directory) => walFiles(cluster, directory))).toEqual(files);

    await cluster.kill(cluster.safekeepers[1]);
    flipBit(cluster, { directory: cluster.safekeeperDirectories[1], lsn: damaged });
    await cluster.startStorage();
    await cluster.startCompute();
    expect(await query(cluster, "SELECT count(*) FROM notes")).toEqual([String(ROWS)]);
  } finally {
    await cluster.destroy();
  }
}, 400_000);

function pageserverUrl({ cluster }: TestCluster): string {
  return `http://127.0.0.1:${cluster.ports.pageserver.http}/v1/tenant/${cluster.tenantId}/timeline`;
}

async function lastRecord(cluster: TestCluster, timelineId: string): Promise<Lsn> {
  const reply = await fetch(`${pageserverUrl(cluster)}/${timelineId}`);
  return parseLsn(((await reply.json()) as { last_record_lsn: string }).last_record_lsn);
}

/** A second timeline, on the same pageserver. */
async function makeBranch(cluster: TestCluster): Promise<string> {
  const id = "be".repeat(16);
  const [{ timelineId }] = cluster.cluster.branches;
  const body = JSON.stringify({ new_timeline_id: id, ancestor_timeline_id: timelineId });
  const reply = await fetch(pageserverUrl(cluster), { method: "POST", body, headers: { "content-type": "application/json" } });
  if (!reply.ok) throw new Error(await reply.text());
  return id;
}

async function query(cluster: TestCluster, sql: string): Promise<readonly (string | null)[]> {
  const client = await connect(cluster.pgPort);
  try {
    const { rows } = await client.query(sql);
    return rows[0] ?? [];
  } finally {
    await client.close();
  }
}

/** Where the log stood before and after rows that only the safekeepers have. */
async function writeRows(cluster: TestCluster): Promise<{ from: Lsn; to: Lsn }> {
  await query(cluster, "CREATE TABLE notes (id int, filler text)");
  const [from] = await query(cluster, "SELECT pg_current_wal_flush_lsn()::text");
  await query(cluster, `INSERT INTO notes SELECT i, repeat('x', 50) FROM generate_series(1, ${ROWS}) i`);
  const [to] = await query(cluster, "SELECT pg_current_wal_flush_lsn()::text");
  return { from: parseLsn(from ?? ""), to: parseLsn(to ?? "") };
}

function timelineDirectory({ cluster }: TestCluster, directory: string): string {
  return join(directory, cluster.tenantId, cluster.branches[0].timelineId);
}

function walFiles(cluster: TestCluster, directory: string): string[] {
  return readdirSync(timelineDirectory(cluster, directory)).sort();
}

function flipBit(cluster: TestCluster, { directory, lsn }: { directory: string; lsn: Lsn }): void {
  const name = walFileName(lsn, SEGMENT_BYTES);
  const found = walFiles(cluster, directory).find((file) => file.startsWith(name));
  if (found === undefined) throw new Error(`no ${name} in ${directory}`);
  const file = openSync(join(timelineDirectory(cluster, directory), found), "r+");
  try {
    const byte = new Uint8Array(1);
    readSync(file, byte, 0, 1, lsn % SEGMENT_BYTES);
    byte[0] ^= 1;
    writeSync(file, byte, 0, 1, lsn % SEGMENT_BYTES);
  } finally {
    closeSync(file);
  }
}

async function until(holds: () => boolean, timeoutMs: number): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  while (!holds()) {
    if (performance.now() > deadlineMs) throw new Error("waited in vain");
    await Bun.sleep(100);
  }
}
