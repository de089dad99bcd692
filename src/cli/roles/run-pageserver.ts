/** `strata --role pageserver`, or the symlink pageserver. */
import { resolve } from "node:path";
import { loadPageserverConfig } from "../../pageserver/config.ts";
import { startPageserver } from "../../pageserver/pageserver.ts";
import { PAGESERVER_OPTIONS } from "./pageserver-options.ts";
import { roleProgram } from "./run-role.ts";

export const pageserverProgram = roleProgram({
  name: "pageserver",
  description: "Turns WAL into pages as of any LSN.",
  options: PAGESERVER_OPTIONS,
  start: async (values, context) => startPageserver(await loadPageserverConfig(context.platform.files, resolve(values.workdir)), context),
});
