/** `strata dev …`: picks the command. Without one it runs the cluster in the foreground. */
import { StrataError } from "../../kit/errors.ts";
import { realPlatform } from "../../platform/real/real-platform.ts";
import type { CommandLine, Run } from "../run.ts";
import { type OptionTable, type OptionValues, parseOptions } from "../options/option-table.ts";
import { branchCreate, branchList } from "./commands/branch.ts";
import { killCluster, startCluster, stopCluster } from "./commands/cluster.ts";
import { endpointList, endpointStart, endpointStop } from "./commands/endpoint.ts";
import { runSql } from "./commands/sql.ts";
import { showStatus, timelineStatus } from "./commands/status.ts";
import { BRANCH_OPTIONS, DIRECTORY_OPTIONS, ENDPOINT_OPTIONS, SQL_OPTIONS, START_OPTIONS, TIMELINE_OPTIONS } from "./dev-options.ts";
import { supervise } from "./supervise.ts";

interface DevCommand {
  readonly words: string;
  /** Shown after the words: names of positional arguments. */
  readonly positionals: readonly string[];
  readonly help: string;
  readonly run: (line: CommandLine, positionals: readonly string[], usage: { program: string; description: string }) => Promise<number>;
}

function command<T extends OptionTable>(spec: { words: string; positionals?: readonly string[]; help: string; options: T; run: (values: OptionValues<T>, positionals: readonly string[]) => Promise<number> }): DevCommand {
  return {
    words: spec.words,
    positionals: spec.positionals ?? [],
    help: spec.help,
    run: (line, positionals, usage) => spec.run(parseOptions(spec.options, { ...usage, argv: line.argv, environment: line.environment, print: (text) => void process.stdout.write(text) }), positionals),
  };
}

const platform = realPlatform();

const COMMANDS: readonly DevCommand[] = [
  command({ words: "", help: "run the cluster in the foreground", options: START_OPTIONS, run: (values) => supervise(values, platform) }),
  command({ words: "start", help: "run the cluster in the background; returns when it is ready", options: START_OPTIONS, run: (values) => startCluster(values, platform) }),
  command({ words: "stop", help: "stop it in order", options: DIRECTORY_OPTIONS, run: (values) => stopCluster(values, platform) }),
  command({ words: "kill", help: "kill -9 every process of it, as a power cut would", options: DIRECTORY_OPTIONS, run: (values) => killCluster(values, platform) }),
  command({ words: "status", help: "roles, branches and endpoints", options: DIRECTORY_OPTIONS, run: (values) => showStatus(values, platform) }),
  command({ words: "sql", positionals: ["ENDPOINT"], help: "run SQL on an endpoint", options: SQL_OPTIONS, run: (values, [name]) => runSql({ ...values, endpoint: name as string }, platform) }),
  command({ words: "branch create", positionals: ["NAME"], help: "branch at an LSN, a timestamp, or now", options: BRANCH_OPTIONS, run: (values, [name]) => branchCreate({ ...values, name: name as string }, platform) }),
  command({ words: "branch list", help: "branches as a tree", options: DIRECTORY_OPTIONS, run: (values) => branchList(values, platform) }),
  command({ words: "endpoint start", positionals: ["NAME"], help: "start a PostgreSQL on a branch", options: ENDPOINT_OPTIONS, run: (values, [name]) => endpointStart({ ...values, name: name as string }, platform) }),
  command({ words: "endpoint stop", positionals: ["NAME"], help: "stop it", options: DIRECTORY_OPTIONS, run: (values, [name]) => endpointStop({ ...values, name: name as string }, platform) }),
  command({ words: "endpoint list", help: "endpoints and their addresses", options: DIRECTORY_OPTIONS, run: (values) => endpointList(values, platform) }),
  command({ words: "timeline status", help: "how far safekeepers and pageserver are", options: TIMELINE_OPTIONS, run: (values) => timelineStatus(values, platform) }),
];

function usageText(): string {
  const lines = COMMANDS.map((one) => `  strata dev ${[one.words, ...one.positionals].filter(Boolean).join(" ")}`.padEnd(38) + one.help);
  return `usage:\n${lines.join("\n")}\n\nEach has --help of its own.\n`;
}

/** The command whose words the arguments begin with: the longest. */
function find(argv: readonly string[]): DevCommand {
  const leading = argv.slice(0, Math.max(0, argv.findIndex((word) => word.startsWith("-")) < 0 ? argv.length : argv.findIndex((word) => word.startsWith("-"))));
  const matching = COMMANDS.filter((one) => one.words === leading.slice(0, one.words === "" ? 0 : one.words.split(" ").length).join(" "));
  const best = matching.sort((a, b) => b.words.length - a.words.length)[0];
  if (best === undefined || (best.words === "" && leading.length > 0)) throw new StrataError("fix-input", "usage", `unknown command "dev ${leading.join(" ")}"\n${usageText()}`);
  return best;
}

export const runDev: Run = async (line) => {
  if (line.argv[0] === "help") {
    console.log(usageText());
    return 0;
  }
  const chosen = find(line.argv);
  const rest = line.argv.slice(chosen.words === "" ? 0 : chosen.words.split(" ").length);
  const wantsHelp = rest.includes("--help") || rest.includes("-h");
  const positionals = rest.slice(0, chosen.positionals.length).filter((word) => !word.startsWith("-"));
  if (positionals.length < chosen.positionals.length && !wantsHelp) {
    throw new StrataError("fix-input", "usage", `strata dev ${chosen.words} needs ${chosen.positionals.slice(positionals.length).join(" ")}`);
  }
  const program = ["dev", chosen.words, ...chosen.positionals].filter(Boolean).join(" ");
  return chosen.run({ ...line, argv: rest.slice(positionals.length) }, positionals, { program, description: chosen.help });
};
