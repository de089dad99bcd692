/** The pageserver's command line: the peer's flags. All other settings are in its working directory (`config.ts`). */
import { option, toggle } from "../options/option-table.ts";
import { integer, sizeLimit, text } from "../options/parsers.ts";
import { COMMON_OPTIONS } from "./common-options.ts";

export const PAGESERVER_OPTIONS = {
  ...COMMON_OPTIONS,
  workdir: option({ flag: "-D, --workdir <path>", help: "directory of pageserver.toml, identity.toml, metadata.json and all local data", parse: text, default: ".neon" }),
  memoryLimit: option({ flag: "--memory-limit <size>", help: "what the process may take, such as 1GB: caches and in-memory layers are cut to fit, ingest waits; 0 for no limit", parse: sizeLimit, default: null }),
  jobThreads: option({ flag: "--job-threads <count>", help: "threads that write and merge layers; 0 does it on the main one", parse: integer(0, 64), default: null }),
  dev: toggle("--dev", "accepted for the peer's sake; changes nothing"),
};
