/** Options of the `dev` commands. */
import { option, repeatable, toggle } from "../options/option-table.ts";
import { integer, optionalPath, pgMajor, setting, text } from "../options/parsers.ts";

export const DIRECTORY_OPTIONS = {
  dir: option({ flag: "--dir <path>", help: "directory of the cluster", parse: text, default: ".strata" }),
};

export const START_OPTIONS = {
  ...DIRECTORY_OPTIONS,
  pgVersion: option({ flag: "--pg-version <major>", help: "PostgreSQL of a new cluster: 14, 15, 16 or 17", parse: pgMajor, default: 17 as const }),
  pgBinDir: option({ flag: "--pg-bin-dir <path>", help: "PostgreSQL's binaries, if not those of the npm package", parse: optionalPath, default: null }),
  databaseUrl: option({ flag: "--database-url <url>", help: "the controller's database; a private PostgreSQL is started without it", parse: text, default: null }),
  safekeepers: option({ flag: "--safekeepers <count>", help: "of a new cluster", parse: integer(1, 7), default: 3 }),
  setting: repeatable({ flag: "-c, --setting <name=value>", help: "line of the endpoints' postgresql.conf, for a new cluster", parse: setting }),
  singleProcess: toggle("--single-process", "run every role inside one process: for debugging"),
  pageserverConfig: option({ flag: "--pageserver-config <toml>", help: "lines added to pageserver.toml", parse: text, default: "" }),
};

export const BRANCH_OPTIONS = {
  ...DIRECTORY_OPTIONS,
  at: option({ flag: "--at <point>", help: "an LSN, a timestamp, or now", parse: text, default: "now" }),
  from: option({ flag: "--from <branch>", help: "the parent branch", parse: text, default: "main" }),
};

export const ENDPOINT_OPTIONS = {
  ...DIRECTORY_OPTIONS,
  branch: option({ flag: "--branch <name>", help: "branch of a new endpoint; the one of its name unless given", parse: text, default: null }),
  replica: toggle("--replica", "a standby that follows the branch and only reads"),
};

export const SQL_OPTIONS = {
  ...DIRECTORY_OPTIONS,
  command: option({ flag: "-c, --command <sql>", help: "SQL to run; standard input without it", parse: text, default: null }),
  database: option({ flag: "-d, --database <name>", help: "database", parse: text, default: "postgres" }),
};

export const TIMELINE_OPTIONS = {
  ...DIRECTORY_OPTIONS,
  branch: option({ flag: "--branch <name>", help: "which branch", parse: text, default: "main" }),
};
