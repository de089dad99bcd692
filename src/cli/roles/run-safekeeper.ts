/** `strata --role safekeeper`, or the symlink safekeeper. */
import { openRemoteStorage } from "../../remote-storage/open-remote-storage.ts";
import { decodeControlFile } from "../../safekeeper/control-file/codec.ts";
import { presentState } from "../../safekeeper/control-file/json.ts";
import { initializeSafekeeper, startSafekeeper } from "../../safekeeper/safekeeper.ts";
import { roleProgram } from "./run-role.ts";
import { SAFEKEEPER_OPTIONS, safekeeperConfig } from "./safekeeper-options.ts";

export const safekeeperProgram = roleProgram({
  name: "safekeeper",
  description: "Makes WAL durable and serves it.",
  options: SAFEKEEPER_OPTIONS,
  start: async (values, context) => {
    const { platform } = context;
    if (values.dumpControlFile !== null) {
      process.stdout.write(`${JSON.stringify(presentState(decodeControlFile(await platform.files.readFile(values.dumpControlFile))))}\n`);
      return null;
    }
    const config = safekeeperConfig(values, process.env);
    if (values.init) {
      await initializeSafekeeper(config, platform);
      return null;
    }
    const storage = config.remoteStorage === null ? {} : { remoteStorage: await openRemoteStorage(config.remoteStorage, { platform, fetch }) };
    return startSafekeeper(config, { ...context, ...storage });
  },
});
