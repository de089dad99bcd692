/** `strata --role safekeeper`, or the symlink safekeeper. */
import { startSafekeeper } from "../../safekeeper/safekeeper.ts";
import type { Run } from "../command-line.ts";
import { runRole } from "./run-role.ts";
import { SAFEKEEPER_OPTIONS, safekeeperConfig } from "./safekeeper-options.ts";

export const runSafekeeper: Run = (line) =>
  runRole({ name: "safekeeper", description: "Makes WAL durable and serves it.", options: SAFEKEEPER_OPTIONS, start: (values, context) => startSafekeeper(safekeeperConfig(values), context) }, line);
