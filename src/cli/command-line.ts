/**
 * Picks what to do: a role (`--role NAME`, or a symlink of that name), or a command (`dev`, `ctl`, …). Each is loaded only
 * when chosen. Exit codes: 0 done, 1 failed, 2 used wrongly.
 */
import { basename } from "node:path";
import { Cancelled, describeError, isStrataError } from "../kit/errors.ts";
import { versionLine } from "../kit/version.ts";
import { HelpShown } from "./options/option-table.ts";
import { ROLE_PROGRAMS } from "./roles/role-programs.ts";
import type { CommandLine, Run } from "./run.ts";

/** Names of symlinks that choose a role: the peer's binaries. */
const SYMLINKS: Readonly<Record<string, string>> = {
  storage_broker: "broker",
  storage_controller: "controller",
  safekeeper: "safekeeper",
  pageserver: "pageserver",
};

const COMMANDS: Readonly<Record<string, { readonly help: string; readonly load: () => Promise<Run> }>> = {
  dev: { help: "run a whole cluster on this machine, and talk to it", load: async () => (await import("./dev/dev.ts")).runDev },
  bench: { help: "put load on a pageserver, and measure", load: async () => (await import("./bench/bench.ts")).runBench },
};

const USAGE = `usage: strata --role ${Object.keys(ROLE_PROGRAMS).join("|")} [options]
       strata COMMAND [options]
       strata --version | --help

commands:
${Object.entries(COMMANDS).map(([name, { help }]) => `  ${name.padEnd(8)} ${help}`).join("\n")}

Each role and command has --help of its own. Invoked through a symlink named
${Object.keys(SYMLINKS).join(", ")} it runs that role.
`;

function usageError(message: string): number {
  process.stderr.write(`strata: ${message}\n${USAGE}`);
  return 2;
}

async function runRole(role: string | undefined, line: CommandLine): Promise<number> {
  const load = role === undefined ? undefined : ROLE_PROGRAMS[role];
  if (load === undefined) return usageError(role === undefined ? "--role needs a name" : `unknown role "${role}"`);
  return (await load()).run(line);
}

function dispatch(line: CommandLine): Promise<number> | number {
  const [first, ...rest] = line.argv;
  const linked = SYMLINKS[basename(line.invokedAs)];
  if (first === "--version" || first === "-V") {
    console.log(versionLine(linked === undefined ? "strata" : basename(line.invokedAs)));
    return 0;
  }
  if (linked !== undefined) return runRole(linked, line);
  if (first === undefined) return usageError("a role or a command is needed");
  if (first === "--help" || first === "-h") {
    console.log(USAGE);
    return 0;
  }
  if (first === "--role") return runRole(rest[0], { ...line, argv: rest.slice(1) });
  if (first.startsWith("--role=")) return runRole(first.slice("--role=".length), { ...line, argv: rest });
  const command = COMMANDS[first];
  if (command === undefined) return usageError(first.startsWith("-") ? `unknown option ${first}` : `unknown command "${first}"`);
  return command.load().then((run) => run({ ...line, argv: rest }));
}

/** Never throws: what went wrong is on stderr. */
export async function runCommandLine(line: CommandLine): Promise<number> {
  try {
    return await dispatch(line);
  } catch (error) {
    if (error instanceof HelpShown) return 0;
    if (error instanceof Cancelled) return 1;
    process.stderr.write(`strata: ${describeError(error)}\n`);
    if (isStrataError(error, "usage")) return 2;
    if (!isStrataError(error) && error instanceof Error && error.stack !== undefined) process.stderr.write(`${error.stack}\n`);
    return 1;
  }
}
