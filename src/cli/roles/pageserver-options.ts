/** The pageserver's command line: the peer's flags. All other settings are in its working directory (`config.ts`). */
import { option, toggle } from "../options/option-table.ts";
import { text } from "../options/parsers.ts";
import { COMMON_OPTIONS } from "./common-options.ts";

export const PAGESERVER_OPTIONS = {
  ...COMMON_OPTIONS,
  workdir: option({ flag: "-D, --workdir <path>", help: "directory of pageserver.toml, identity.toml, metadata.json and all local data", parse: text, default: ".neon" }),
  dev: toggle("--dev", "accepted for the peer's sake; changes nothing"),
};
