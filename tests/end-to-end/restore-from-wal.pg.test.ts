/**
 * Nothing is left but the archive of initdb and the WAL: first the pageserver loses its disk and all layers in object storage, then
 * the safekeepers lose their disks as well, and their WAL backup is all there is. Every committed row comes back, and writing goes on.
 */
import { expect, test } from "bun:test";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { layout } from "../../src/cli/dev/cluster-file.ts";
import { type Lsn, parseLsn } from "../../src/kit/lsn.ts";
import { TestCluster } from "../support/dev-cluster.ts";
import { connect } from "../verify/durability/writers.ts";

const ROWS = 5_200;
const TOTALS = "SELECT count(*)::text, coalesce(sum(hashtext(id::text || filler)::bigint), 0)::text FROM notes";
const WAIT_MS = 120_000;

test("every row comes back from the initdb archive and WAL: of the safekeepers, and of their backup alone", async () => {
  const cluster = await TestCluster.start({ pgVersion: 17, settings: { shared_buffers: "16MB" }, environment: { STRATA_SAFEKEEPER_PARTIAL_BACKUP_TIMEOUT: "500ms" } });
  try {
    await query(cluster, "CREATE TABLE notes (id int PRIMARY KEY, filler text)");
    await addRows(cluster, 0);
    const first = await query(cluster, TOTALS);
    const [middle] = await query(cluster, "SELECT pg_current_wal_flush_lsn()::text");
    await query(cluster, "CREATE TABLE after_the_branch_point ()");

    await cluster.compute.stop();
    await losePageserver(cluster);
    await cluster.startStorage();
    await createAgain(cluster);
    // A branch of it can be made without a compute: the WAL comes for whoever waits for it.
    const branch = (await post(timelinesUrl(cluster), { new_timeline_id: "be".repeat(16), ancestor_timeline_id: timelineOf(cluster), ancestor_start_lsn: middle })) as { ancestor_lsn: string };
    expect(branch.ancestor_lsn).toBe(middle ?? "");
    await cluster.startCompute();
    expect(await query(cluster, TOTALS)).toEqual(first);

    await addRows(cluster, 1);
    const second = await query(cluster, TOTALS);
    expect(second[0]).toBe(String(2 * ROWS));
    await cluster.compute.stop();
    const end = await backedUpToTheEnd(cluster);
    await losePageserver(cluster);
    for (const directory of cluster.safekeeperDirectories) rmSync(directory, { recursive: true, force: true });
    await cluster.startStorage();
    for (const { http } of cluster.cluster.ports.safekeepers) {
      const { flush_lsn, commit_lsn } = (await post(`http://127.0.0.1:${http}/v1/tenant/${cluster.cluster.tenantId}/timeline/${timelineOf(cluster)}/restore_from_backup`, {})) as { flush_lsn: string; commit_lsn: string };
      expect([parseLsn(flush_lsn), parseLsn(commit_lsn)]).toEqual([end, end]);
    }
    await createAgain(cluster);
    await cluster.startCompute();
    expect(await query(cluster, TOTALS)).toEqual(second);
    await addRows(cluster, 2);
    expect((await query(cluster, TOTALS))[0]).toBe(String(3 * ROWS));
  } finally {
    await cluster.destroy();
  }
}, 600_000);

const timelinesUrl = ({ cluster }: TestCluster): string => `http://127.0.0.1:${cluster.ports.controller}/v1/tenant/${cluster.tenantId}/timeline`;
const timelineOf = ({ cluster }: TestCluster): string => cluster.branches[0].timelineId;

async function query(cluster: TestCluster, sql: string): Promise<readonly (string | null)[]> {
  const client = await connect(cluster.pgPort);
  try {
    return (await client.query(sql)).rows[0] ?? [];
  } finally {
    await client.close();
  }
}

/** More than a segment of WAL, in several transactions. */
async function addRows(cluster: TestCluster, round: number): Promise<void> {
  for (let part = 0; part < 4; part++) {
    const from = round * ROWS + part * (ROWS / 4);
    // Text that does not compress.
    await query(cluster, `INSERT INTO notes SELECT i, (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 100) j) FROM generate_series(${from}, ${from + ROWS / 4 - 1}) i`);
  }
}

/** kill -9 of everything; of the pageserver's disk and objects only the archives of initdb stay. */
async function losePageserver(cluster: TestCluster): Promise<void> {
  await cluster.killAll();
  rmSync(cluster.pageserverDirectory, { recursive: true, force: true });
  const objects = join(layout(cluster.directory).objectStore, "pageserver");
  const names = readdirSync(objects, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const kept = names.filter(({ name }) => name === "initdb.tar.zst");
  expect([kept.length, names.length > kept.length]).toEqual([1, true]);
  for (const entry of names) if (!kept.includes(entry)) rmSync(join(entry.parentPath, entry.name));
}

async function post(url: string, body: unknown): Promise<unknown> {
  const reply = await fetch(url, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" }, signal: AbortSignal.timeout(WAIT_MS) });
  const text = await reply.text();
  expect([reply.status < 300, text]).toEqual([true, text]);
  return JSON.parse(text) as unknown;
}

/** Through the controller, as an operator would. */
async function createAgain(cluster: TestCluster): Promise<void> {
  const timelineId = timelineOf(cluster);
  const timelines = `http://127.0.0.1:${cluster.cluster.ports.pageserver.http}/v1/tenant/${cluster.cluster.tenantId}/timeline`;
  expect((await fetch(`${timelines}/${timelineId}`)).status).toBe(404);
  await post(timelinesUrl(cluster), { new_timeline_id: timelineId, existing_initdb_timeline_id: timelineId });
}

/** Until some unfinished segment in the backup ends where the log does. */
async function backedUpToTheEnd(cluster: TestCluster): Promise<Lsn> {
  const objects = join(layout(cluster.directory).objectStore, "safekeeper", cluster.cluster.tenantId, timelineOf(cluster));
  for (const deadlineMs = performance.now() + WAIT_MS; performance.now() < deadlineMs; await Bun.sleep(100)) {
    const positions = await Promise.all([0, 1, 2].map((index) => cluster.safekeeperPositions(index)));
    const end = Math.max(...positions.map((position) => position?.flushLsn ?? 0));
    const hex = end.toString(16).toUpperCase().padStart(16, "0");
    if (readdirSync(objects).some((name) => name.includes(`_${hex}_${hex}_`))) return end;
  }
  throw new Error(`the end of the log is not backed up: ${readdirSync(objects).join(", ")}`);
}
