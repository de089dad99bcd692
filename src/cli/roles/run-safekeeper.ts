/** `strata --role safekeeper`, or the symlink safekeeper. */
import { openRemoteStorage } from "../../remote-storage/open-remote-storage.ts";
import { startSafekeeper } from "../../safekeeper/safekeeper.ts";
import { roleProgram } from "./run-role.ts";
import { SAFEKEEPER_OPTIONS, safekeeperConfig } from "./safekeeper-options.ts";

export const safekeeperProgram = roleProgram({
  name: "safekeeper",
  description: "Makes WAL durable and serves it.",
  options: SAFEKEEPER_OPTIONS,
  start: async (values, context) => {
    const config = safekeeperConfig(values, process.env);
    const storage = config.remoteStorage === null ? {} : { remoteStorage: await openRemoteStorage(config.remoteStorage, { platform: context.platform, fetch }) };
    return startSafekeeper(config, { ...context, ...storage });
  },
});
