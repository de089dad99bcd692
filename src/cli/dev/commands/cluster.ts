/** Starting the cluster in the background, stopping it, killing it. */
import { openSync } from "node:fs";
import { resolve } from "node:path";
import { StrataError } from "../../../kit/errors.ts";
import type { Platform } from "../../../platform/platform.ts";
import type { OptionValues } from "../../options/option-table.ts";
import { layout } from "../cluster-file.ts";
import { DevClient } from "../control-api.ts";
import type { DIRECTORY_OPTIONS, START_OPTIONS } from "../dev-options.ts";
import { ownProgram } from "../launchers.ts";
import { isRunning, killTree } from "../process-tree.ts";
import { supervisorPid } from "../supervise.ts";
import { printStatus } from "./status.ts";

const POLL_MS = 50;
const START_TIMEOUT_MS = 900_000;
const STOP_TIMEOUT_MS = 120_000;

function startArguments(values: OptionValues<typeof START_OPTIONS>): string[] {
  const args = ["dev", "--dir", resolve(values.dir), "--pg-version", String(values.pgVersion), "--safekeepers", String(values.safekeepers)];
  if (values.pgBinDir !== null) args.push("--pg-bin-dir", values.pgBinDir);
  if (values.databaseUrl !== null) args.push("--database-url", values.databaseUrl);
  if (values.singleProcess) args.push("--single-process");
  for (const [name, value] of values.setting) args.push("--setting", `${name}=${value}`);
  if (values.pageserverConfig !== "") args.push("--pageserver-config", values.pageserverConfig);
  return args;
}

export async function startCluster(values: OptionValues<typeof START_OPTIONS>, platform: Platform): Promise<number> {
  const directory = resolve(values.dir);
  await platform.files.makeDirectory(directory);
  if ((await supervisorPid(platform, directory)) !== null) throw new StrataError("conflict", "already-running", `the cluster in ${directory} is running already`);
  const output = openSync(`${directory}/start.log`, "w");
  const child = Bun.spawn([...ownProgram(), ...startArguments(values)], { stdin: "ignore", stdout: output, stderr: output, detached: true });
  child.unref();
  const deadlineMs = platform.clock.monotonicMs() + START_TIMEOUT_MS;
  for (;;) {
    const status = await DevClient.of(directory, platform).then((client) => client.status()).catch(() => null);
    if (status?.ready === true) {
      printStatus(status);
      return 0;
    }
    if (child.exitCode !== null || child.signalCode !== null) throw new StrataError("unavailable", "start-failed", `the cluster did not start:\n${await Bun.file(`${directory}/start.log`).text()}`);
    if (platform.clock.monotonicMs() > deadlineMs) throw new StrataError("retry", "start-timeout", `the cluster is not ready yet; see ${layout(directory).logFile}`);
    await platform.clock.sleep(POLL_MS);
  }
}

export async function stopCluster(values: OptionValues<typeof DIRECTORY_OPTIONS>, platform: Platform): Promise<number> {
  const directory = resolve(values.dir);
  const pid = await supervisorPid(platform, directory);
  if (pid === null) {
    console.log("not running");
    return 0;
  }
  await (await DevClient.of(directory, platform)).stop();
  const deadlineMs = platform.clock.monotonicMs() + STOP_TIMEOUT_MS;
  while ((await isRunning(pid)) && (await supervisorPid(platform, directory)) !== null) {
    if (platform.clock.monotonicMs() > deadlineMs) throw new StrataError("retry", "stop-timeout", `the cluster has not stopped yet; see ${layout(directory).logFile}`);
    await platform.clock.sleep(POLL_MS);
  }
  console.log("stopped");
  return 0;
}

export async function killCluster(values: OptionValues<typeof DIRECTORY_OPTIONS>, platform: Platform): Promise<number> {
  const pid = await supervisorPid(platform, resolve(values.dir));
  if (pid === null) {
    console.log("not running");
    return 0;
  }
  console.log(`killed ${await killTree(pid)} processes`);
  return 0;
}
