/**
 * Everything is killed while a branch begins beyond what the pageserver has kept, and the safekeepers come back late. The branch can be
 * read when its parent has caught up, which may take safekeepers and a compute: nothing that has to work before them may wait for it.
 */
import { afterAll, expect, test } from "bun:test";
import { BranchMaker } from "../../src/cli/dev/branches.ts";
import { ControllerClient } from "../../src/controller/api/client.ts";
import { parseLsn } from "../../src/kit/lsn.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { PgClient } from "../../src/wire/client.ts";
import { TestCluster } from "../support/dev-cluster.ts";
import { testLogger } from "../support/test-logger.ts";

const platform = realPlatform();
let cluster: TestCluster;
afterAll(() => cluster?.destroy(), 60_000);

async function query(sql: string): Promise<string | null> {
  const client = await PgClient.connect(platform.network, { address: { host: "127.0.0.1", port: cluster.pgPort }, parameters: { user: "postgres", database: "postgres" }, ...platform });
  try {
    return (await client.query(sql)).rows.at(0)?.at(0) ?? null;
  } finally {
    await client.close();
  }
}

/** End of the timeline at the pageserver; null while it takes no WAL from anybody. */
async function ingested(timelineId: string): Promise<number> {
  const reply = await fetch(`http://127.0.0.1:${cluster.cluster.ports.pageserver.http}/v1/tenant/${cluster.cluster.tenantId}/timeline/${timelineId}`, { signal: AbortSignal.timeout(10_000) });
  const { last_record_lsn } = (await reply.json()) as { last_record_lsn: string };
  return parseLsn(last_record_lsn);
}

/** Tells the pageserver what it knows, as a controller does that is not sure: it answers when the tenant is loaded. */
async function attachAgain(): Promise<void> {
  const url = `http://127.0.0.1:${cluster.cluster.ports.pageserver.http}`;
  const location = await (await fetch(`${url}/v1/location_config/${cluster.cluster.tenantId}`)).text();
  expect(location).toContain("AttachedSingle");
  const reply = await fetch(`${url}/v1/tenant/${cluster.cluster.tenantId}/location_config`, { method: "PUT", body: location, headers: { "content-type": "application/json" }, signal: AbortSignal.timeout(60_000) });
  expect(reply.status).toBe(200);
}

test("the tenant is attached at once, the parent's compute starts, and the branch goes on from it", async () => {
  cluster = await TestCluster.start({ pgVersion: 17 });
  await query("create table t as select generate_series(1, 1000) as id");
  const controller = new ControllerClient({ baseUrl: `http://127.0.0.1:${cluster.cluster.ports.controller}`, clock: platform.clock });
  const [main] = cluster.cluster.branches;
  const maker = new BranchMaker({ cluster: cluster.cluster, controller, platform, log: testLogger() });
  const branch = await maker.plan({ name: "branch", parent: main, at: "now" });
  await maker.make(branch, main);
  const branchLsn = parseLsn(branch.lsn ?? "");

  await cluster.killAll();
  for (const role of [cluster.broker, cluster.controller, cluster.pageserver]) {
    role.start();
    await role.waitReady(120_000);
  }
  expect(await ingested(main.timelineId)).toBeLessThan(branchLsn);
  await attachAgain();

  await cluster.startStorage();
  await cluster.startCompute();
  expect(await query("select count(*) from t")).toBe("1000");
  for (let tries = 0; (await ingested(main.timelineId)) < branchLsn && tries < 200; tries++) await Bun.sleep(50);
  expect(await ingested(main.timelineId)).toBeGreaterThanOrEqual(branchLsn);
  expect(await ingested(branch.timelineId)).toBe(branchLsn);
  expect(cluster.pageserver.log()).not.toContain("timeline takes no WAL tenantId");
}, 240_000);
