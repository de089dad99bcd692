/**
 * `strata bench NAME [options] [TENANT/TIMELINE …]`: load on a pageserver, ours or another that speaks the same protocols, with the work,
 * options and output of the peer's pagebench: rates while it goes on, and one JSON document in the end.
 */
import { StrataError } from "../../kit/errors.ts";
import { realPlatform } from "../../platform/real/real-platform.ts";
import type { CommandLine, Run } from "../run.ts";
import { type OptionValues, type ParseContext, parseOptions } from "../options/option-table.ts";
import { baseBackupClients } from "./basebackup.ts";
import { BASEBACKUP_OPTIONS, GETPAGE_OPTIONS, type LOAD_OPTIONS } from "./bench-options.ts";
import { getPageClients } from "./getpage-latest-lsn.ts";
import { type LoadClient, runLoad } from "./load.ts";
import { PageserverUnderLoad, type Target } from "./targets.ts";

const platform = realPlatform();

interface Load {
  readonly help: string;
  readonly run: (line: CommandLine, usage: { program: string; description: string }) => Promise<number>;
}

type LoadValues = OptionValues<typeof LOAD_OPTIONS>;
type Clients<V> = (targets: readonly Target[], options: V, tools: { pageserver: PageserverUnderLoad; platform: typeof platform }) => readonly LoadClient[] | Promise<readonly LoadClient[]>;

function load<V extends LoadValues>(help: string, parse: (context: ParseContext) => V, clients: Clients<V>): Load {
  return {
    help,
    run: async (line, usage) => {
      const isTarget = (word: string): boolean => /^[0-9a-f]{32}[^/]*\//.test(word);
      const values = parse({ ...usage, argv: line.argv.filter((word) => !isTarget(word)), environment: line.environment, print: (text) => void process.stdout.write(text) });
      const pageserver = new PageserverUnderLoad(values, platform);
      const targets = await pageserver.targets(line.argv.filter(isTarget), values.limitToFirstNTargets);
      const prepared = await clients(targets, values, { pageserver, platform });
      const interrupt = new AbortController();
      process.once("SIGINT", () => interrupt.abort());
      const print = (text: string): void => void process.stderr.write(`${text}\n`);
      const total = await runLoad(prepared, { platform, runtimeMs: values.runtime, print, profilePath: values.profile, flameGraph: (seconds) => pageserver.flameGraph(seconds), signal: interrupt.signal });
      console.log(JSON.stringify({ total }, null, 2));
      return 0;
    },
  };
}

const LOADS: Readonly<Record<string, Load>> = {
  "getpage-latest-lsn": load("random pages of all relations", (context) => parseOptions(GETPAGE_OPTIONS, context), getPageClients),
  basebackup: load("base backups", (context) => parseOptions(BASEBACKUP_OPTIONS, context), baseBackupClients),
};

const USAGE = `usage:\n${Object.entries(LOADS).map(([name, { help }]) => `  strata bench ${name} [options] [TENANT/TIMELINE …]`.padEnd(66) + help).join("\n")}\n\nEach has --help of its own. Without timelines, all of the pageserver's.\n`;

export const runBench: Run = async (line) => {
  const [name = "", ...argv] = line.argv;
  if (["help", "--help", "-h"].includes(name)) {
    console.log(USAGE);
    return 0;
  }
  const chosen = LOADS[name];
  if (chosen === undefined) throw new StrataError("fix-input", "usage", `${name === "" ? "a load is needed" : `unknown load "${name}"`}\n${USAGE}`);
  return await chosen.run({ ...line, argv }, { program: `bench ${name}`, description: chosen.help });
};
