/**
 * `bun run verify pages --pg 14|15|16|17 [--checksums] [--keep]`: after a mixed workload on an unmodified PostgreSQL, with the
 * compute's directory deleted and the pageserver rebuilt from the bucket, every page at the final LSN equals the directory
 * that PostgreSQL itself checkpointed. Last line: `pages: N compared, 0 differences`; exit 1 on any difference.
 */
import { chmod, cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { loadCluster, layout, type Cluster } from "../../src/cli/dev/cluster-file.ts";
import { fetchBaseBackup } from "../../src/compute/base-backup/fetch.ts";
import { lsnToString, parseLsn, type Lsn } from "../../src/kit/lsn.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { DevProgram } from "../support/dev-program.ts";
import { databaseOid, relationManagers } from "./pages/catalog.ts";
import { ALLOWED_DIFFERENCES, type DirectoryComparison, DirectoryComparer } from "./pages/compare-directories.ts";
import { connect, runWorkload, WORKLOAD_SETTINGS } from "./pages/workload.ts";

export interface PagesOptions {
  readonly major: 14 | 15 | 16 | 17;
  readonly checksums: boolean;
  readonly keep: boolean;
  readonly print: (line: string) => void;
}

const platform = realPlatform();

async function commitLsn(cluster: Cluster): Promise<Lsn> {
  const path = `/v1/tenant/${cluster.tenantId}/timeline/${cluster.branches[0]?.timelineId}`;
  const answers = await Promise.all(cluster.ports.safekeepers.map(async ({ http }) => parseLsn(((await (await fetch(`http://127.0.0.1:${http}${path}`)).json()) as { commit_lsn: string }).commit_lsn)));
  return Math.max(...answers);
}

async function pageserverPut(cluster: Cluster, rest: string): Promise<void> {
  const reply = await fetch(`http://127.0.0.1:${cluster.ports.pageserver.http}/v1/tenant/${cluster.tenantId}/timeline/${cluster.branches[0]?.timelineId}/${rest}`, { method: "PUT" });
  if (!reply.ok) throw new Error(`${rest}: ${reply.status} ${await reply.text()}`);
}

/** A pageserver that lost its disk learns of its tenants from the controller. */
async function waitAttached(cluster: Cluster): Promise<void> {
  const url = `http://127.0.0.1:${cluster.ports.pageserver.http}/v1/tenant/${cluster.tenantId}/timeline/${cluster.branches[0]?.timelineId}`;
  for (let attempt = 0; attempt < 300; attempt++) {
    if (await fetch(url).then((reply) => reply.ok, () => false)) return;
    await Bun.sleep(100);
  }
  throw new Error("the pageserver did not attach its tenant within 30 s");
}

async function opened(directory: string): Promise<Cluster> {
  const cluster = await loadCluster(platform.files, directory);
  if (cluster === null) throw new Error("the cluster left no cluster file");
  return cluster;
}

/** What a client sees, to be the same before and after. */
async function fingerprint(port: number): Promise<string> {
  const sql = connect(port);
  const rows = await sql`
    SELECT (SELECT count(*) || ':' || sum(a) || ':' || md5(string_agg(b, '' ORDER BY id)) FROM plain) AS plain, (SELECT md5(string_agg(body, '' ORDER BY id)) FROM wide) AS wide,
      (SELECT count(*) FROM nested) AS nested, (SELECT sum(v) FROM shared_rows) AS shared_rows, (SELECT count(*) FROM prepared_rows) AS prepared,
      (SELECT sum(balance) FROM accounts) AS accounts, (SELECT count(*) FROM parted) AS parted, (SELECT count(*) || md5(string_agg(v, '' ORDER BY id)) FROM in_space) AS in_space, (SELECT count(*) FROM pg_prepared_xacts) AS open_prepared,
      (SELECT count(*) || ' ' || md5(string_agg(stamp::text, ' ' ORDER BY id)) FROM (SELECT id, pg_xact_commit_timestamp(xmin) AS stamp FROM accounts) AS stamped WHERE stamp IS NOT NULL) AS stamps,
      (SELECT string_agg(id || ':' || COALESCE(pg_xact_commit_timestamp(xmin)::text, 'none'), ' ' ORDER BY id) FROM nested) AS nested_stamps`;
  await sql.end();
  return JSON.stringify(rows[0]);
}

/** Runs the workload, saves PostgreSQL's own directory, and throws away compute and pageserver. */
async function prepare(dev: DevProgram, options: PagesOptions) {
  const config = ["gc_horizon = 100000000", "checkpoint_distance = 4194304", "compaction_period = '2s'", "compaction_threshold = 3"];
  const toml = `${options.checksums ? "initdb_data_checksums = true\n" : ""}tenant_config = { ${config.join(", ")} }`;
  const settings = Object.entries(WORKLOAD_SETTINGS).flatMap(([name, value]) => ["--setting", `${name}=${value}`]);
  await dev.run("start", "--pg-version", String(options.major), "--pageserver-config", toml, ...settings);
  const cluster = await opened(dev.directory);
  const port = cluster.endpoints[0]?.pgPort ?? 0;
  options.print("running the workload");
  await runWorkload({ port, major: options.major, halfWay: () => pageserverPut(cluster, "checkpoint?wait_until_uploaded=true") });
  const seen = await fingerprint(port);
  const managers = await relationManagers(port);
  const walLogged = await databaseOid(port, "logged");
  await dev.run("endpoint", "stop", "main");
  const lsn = await commitLsn(cluster);
  const saved = join(dev.directory, "..", "saved");
  const endpointDirectory = layout(dev.directory).endpoint("main");
  await cp(join(endpointDirectory, "pgdata"), saved, { recursive: true, filter: (path) => !path.endsWith(".sock") && !path.includes("/pg_wal/") });
  await dev.run("stop");
  await rm(endpointDirectory, { recursive: true });
  await rm(join(layout(dev.directory).pageserver, "tenants"), { recursive: true });
  return { cluster, port, seen, managers, walLogged, lsn, saved };
}

async function verify(directory: string, options: PagesOptions): Promise<DirectoryComparison> {
  const dev = new DevProgram(join(directory, "cluster"));
  try {
    const { cluster, port, seen, managers, walLogged, lsn, saved } = await prepare(dev, options);
    options.print(`comparing at ${lsnToString(lsn)}, compute deleted, pageserver rebuilt from the bucket`);
    await dev.run("start");
    await waitAttached(cluster);
    const fetched = join(directory, "fetched");
    await platform.files.makeDirectory(fetched);
    const timelineId = cluster.branches[0]?.timelineId ?? "";
    const backup = await fetchBaseBackup({ platform, pageserver: { host: "127.0.0.1", port: cluster.ports.pageserver.pg }, tenantId: cluster.tenantId, timelineId, lsn, directory: fetched });
    options.print(`fetched ${backup.files} files, ${backup.sizeBytes} bytes (${backup.fetchedBytes} compressed)`);
    const result = new DirectoryComparer({ ours: fetched, theirs: saved, managers, walLogged, checksums: options.checksums }).compare();
    await dev.run("endpoint", "start", "main");
    const again = await fingerprint(port);
    if (again !== seen) result.differences.push(`a client sees ${again}, not ${seen}`);
    const sql = connect(port);
    const [unlogged] = await sql`SELECT count(*)::int AS n FROM forgotten`;
    if (unlogged?.n !== 0) result.differences.push(`the unlogged table came back with ${unlogged?.n} rows`);
    await sql`CREATE TABLE late TABLESPACE space_empty AS SELECT 1 AS id`;
    await sql`DROP TABLE late`;
    await sql`DROP TABLESPACE space_empty`;
    await sql.end();
    await dev.run("stop");
    return result;
  } finally {
    await dev.kill();
  }
}

export async function verifyPages(options: PagesOptions): Promise<DirectoryComparison> {
  const directory = await mkdtemp(join(tmpdir(), "strata-pages-"));
  await chmod(directory, 0o755);
  try {
    return await verify(directory, options);
  } finally {
    if (options.keep) options.print(`kept ${directory}`);
    else await rm(directory, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { pg: { type: "string", default: "17" }, checksums: { type: "boolean", default: false }, keep: { type: "boolean", default: false } } });
  const major = Number(values.pg);
  if (major !== 14 && major !== 15 && major !== 16 && major !== 17) {
    console.error("usage: bun run verify pages --pg 14|15|16|17 [--checksums] [--keep]");
    process.exit(2);
  }
  const result = await verifyPages({ major, checksums: values.checksums, keep: values.keep, print: (line) => console.log(line) });
  for (const rule of ALLOWED_DIFFERENCES) console.log(`allowed: ${rule}`);
  for (const difference of result.differences.slice(0, 50)) console.log(`DIFFERENCE ${difference}`);
  if (values.checksums) console.log(`${result.checksums} page checksums verified`);
  console.log(`pages: ${result.compared} compared, ${result.differences.length} differences`);
  process.exit(result.differences.length === 0 ? 0 : 1);
}
