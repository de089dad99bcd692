/** What runs, and how far a timeline is. */
import { resolve } from "node:path";
import Table from "cli-table3";
import { z } from "zod";
import { HttpClient, urlPath } from "../../../http/client.ts";
import { describeError } from "../../../kit/errors.ts";
import type { Platform } from "../../../platform/platform.ts";
import type { OptionValues } from "../../options/option-table.ts";
import { findBranch } from "../cluster-file.ts";
import { DevClient, type DevStatus } from "../control-api.ts";
import type { DIRECTORY_OPTIONS, TIMELINE_OPTIONS } from "../dev-options.ts";
import { branchTree } from "./branch.ts";

export function printStatus(status: DevStatus): void {
  console.log(`PostgreSQL ${status.pgVersion}, tenant ${status.tenantId}`);
  console.log(`processes: ${Object.entries(status.processes).map(([name, pid]) => `${name} ${pid ?? "(down)"}`).join(", ")}`);
  console.log("branches:");
  for (const line of branchTree(status.branches)) console.log(`  ${line}`);
  for (const { name, branch, replica, url, running } of status.endpoints) console.log(`${replica ? "replica" : "endpoint"} ${name} on ${branch}: ${running ? url : "stopped"}`);
}

export async function showStatus(values: OptionValues<typeof DIRECTORY_OPTIONS>, platform: Platform): Promise<number> {
  const client = await DevClient.of(resolve(values.dir), platform);
  printStatus(await client.status());
  return 0;
}

const safekeeperSchema = z.object({ flush_lsn: z.string(), commit_lsn: z.string() });
const pageserverSchema = z.object({ last_record_lsn: z.string(), disk_consistent_lsn: z.string(), remote_consistent_lsn: z.string() });

async function ask<S extends z.ZodType>(platform: Platform, port: number, request: { path: string; schema: S }): Promise<z.output<S> | string> {
  const client = new HttpClient({ baseUrl: `http://127.0.0.1:${port}`, clock: platform.clock, timeoutMs: 5000 });
  return client.json({ method: "GET", path: request.path }, request.schema).catch((error: unknown) => describeError(error));
}

export async function timelineStatus(values: OptionValues<typeof TIMELINE_OPTIONS>, platform: Platform): Promise<number> {
  const { cluster } = await DevClient.of(resolve(values.dir), platform);
  const path = urlPath`/v1/tenant/${cluster.tenantId}/timeline/${findBranch(cluster, values.branch).timelineId}`;
  const table = new Table({ head: ["node", "position", "LSN"], style: { head: [], border: [] } });
  for (const [index, { http }] of cluster.ports.safekeepers.entries()) {
    const status = await ask(platform, http, { path, schema: safekeeperSchema });
    const name = `safekeeper-${index + 1}`;
    if (typeof status === "string") table.push([name, "unknown", status]);
    else table.push([name, "flushed", status.flush_lsn], [name, "committed", status.commit_lsn]);
  }
  const status = await ask(platform, cluster.ports.pageserver.http, { path, schema: pageserverSchema });
  if (typeof status === "string") table.push(["pageserver", "unknown", status]);
  else table.push(["pageserver", "ingested", status.last_record_lsn], ["pageserver", "on disk", status.disk_consistent_lsn], ["pageserver", "in object storage", status.remote_consistent_lsn]);
  console.log(table.toString());
  return 0;
}
