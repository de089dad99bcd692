/** Branches: made, and listed as a tree. */
import { resolve } from "node:path";
import type { Platform } from "../../../platform/platform.ts";
import type { OptionValues } from "../../options/option-table.ts";
import { DevClient, type DevStatus } from "../control-api.ts";
import type { BRANCH_OPTIONS, DIRECTORY_OPTIONS } from "../dev-options.ts";

export async function branchCreate(values: OptionValues<typeof BRANCH_OPTIONS> & { name: string }, platform: Platform): Promise<number> {
  const client = await DevClient.of(resolve(values.dir), platform);
  const startMs = platform.clock.monotonicMs();
  const branch = await client.createBranch({ name: values.name, from: values.from, at: values.at });
  console.log(`branch ${branch.name} of ${branch.parent} at ${branch.lsn} (${Math.round(platform.clock.monotonicMs() - startMs)} ms)`);
  return 0;
}

type BranchRow = DevStatus["branches"][number];

/** One line a branch, children under their parent. */
export function branchTree(branches: readonly BranchRow[]): string[] {
  const lines: string[] = [];
  const add = (branch: BranchRow, indent: string): void => {
    const origin = branch.lsn === null ? "" : ` at ${branch.lsn}`;
    lines.push(`${indent}${branch.name}${origin}  ${branch.timelineId}`);
    for (const child of branches.filter((one) => one.parent === branch.name)) add(child, `${indent}  `);
  };
  for (const root of branches.filter((one) => one.parent === null)) add(root, "");
  return lines;
}

export async function branchList(values: OptionValues<typeof DIRECTORY_OPTIONS>, platform: Platform): Promise<number> {
  const client = await DevClient.of(resolve(values.dir), platform);
  console.log(branchTree((await client.status()).branches).join("\n"));
  return 0;
}
