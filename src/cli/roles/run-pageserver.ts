/** `strata --role pageserver`, or the symlink pageserver. */
import { resolve } from "node:path";
import { loadPageserverConfig } from "../../pageserver/config.ts";
import { startPageserver } from "../../pageserver/pageserver.ts";
import type { Run } from "../command-line.ts";
import { PAGESERVER_OPTIONS } from "./pageserver-options.ts";
import { runRole } from "./run-role.ts";

export const runPageserver: Run = (line) =>
  runRole(
    {
      name: "pageserver",
      description: "Turns WAL into pages as of any LSN.",
      options: PAGESERVER_OPTIONS,
      start: async (values, context) => startPageserver(await loadPageserverConfig(context.platform.files, resolve(values.workdir)), context),
    },
    line,
  );
