/** Options that every role has. */
import { option } from "../options/option-table.ts";
import { oneOf } from "../options/parsers.ts";

export const COMMON_OPTIONS = {
  logLevel: option({ flag: "--log-level <level>", help: "debug, info, warn or error", parse: oneOf("debug", "info", "warn", "error"), default: "info" as const }),
  logFormat: option({ flag: "--log-format <format>", help: "plain or json", parse: oneOf("plain", "json"), default: "plain" as const }),
};
