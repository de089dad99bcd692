/** Endpoints: started, stopped, listed. */
import { resolve } from "node:path";
import type { Platform } from "../../../platform/platform.ts";
import type { OptionValues } from "../../options/option-table.ts";
import { DevClient } from "../control-api.ts";
import type { DIRECTORY_OPTIONS, ENDPOINT_OPTIONS } from "../dev-options.ts";

export async function endpointStart(values: OptionValues<typeof ENDPOINT_OPTIONS> & { name: string }, platform: Platform): Promise<number> {
  const client = await DevClient.of(resolve(values.dir), platform);
  const endpoint = await client.startEndpoint({ name: values.name, branch: values.branch, replica: values.replica });
  console.log(`${endpoint.name}: ${endpoint.url}`);
  return 0;
}

export async function endpointStop(values: OptionValues<typeof DIRECTORY_OPTIONS> & { name: string }, platform: Platform): Promise<number> {
  const client = await DevClient.of(resolve(values.dir), platform);
  await client.stopEndpoint(values.name);
  console.log(`${values.name}: stopped`);
  return 0;
}

export async function endpointList(values: OptionValues<typeof DIRECTORY_OPTIONS>, platform: Platform): Promise<number> {
  const client = await DevClient.of(resolve(values.dir), platform);
  for (const { name, branch, replica, url, running } of (await client.status()).endpoints) console.log(`${name}  branch ${branch}  ${replica ? "replica  " : ""}${running ? url : "stopped"}`);
  return 0;
}
