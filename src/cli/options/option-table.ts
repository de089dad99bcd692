/**
 * One declarative table an entry point gives its flags, environment names, help and typed values.
 *
 *   const TABLE = { listenPg: option({ flag: "--listen-pg <host:port>", help: "…", parse: parseAddress, default: … }) };
 *   const values = parseOptions(TABLE, { program: "safekeeper", argv, environment });
 *   values.listenPg.port
 *
 * A value comes from the flag, else from the environment (`STRATA_<PROGRAM>_<FLAG>`), else from the default. Whatever
 * is wrong with any of them is a StrataError fix-input `usage`, which ends the program with exit code 2.
 */
import { Command, CommanderError, Option } from "commander";
import { describeError, StrataError } from "../../kit/errors.ts";

export interface OptionSpec<T> {
  /** `-D, --datadir <path>`; without an argument it is a switch, true when given. */
  readonly flag: string;
  readonly help: string;
  readonly parse: (text: string) => T;
  readonly default: T | undefined;
  readonly required: boolean;
  /** May be given several times; each is parsed, and the value is the list. */
  readonly repeatable: boolean;
}

export type OptionTable = Readonly<Record<string, OptionSpec<unknown>>>;
export type OptionValues<T extends OptionTable> = { readonly [K in keyof T]: T[K] extends OptionSpec<infer V> ? V : never };

interface OptionInput<T> {
  readonly flag: string;
  readonly help: string;
  readonly parse: (text: string) => T;
}

/** An option with a default (which may be null: absent). */
export function option<T, D extends T | null>(input: OptionInput<T> & { readonly default: D }): OptionSpec<T | D> {
  return { ...input, required: false, repeatable: false };
}

/** An option that must be given, on the command line or in the environment. */
export function required<T>(input: OptionInput<T>): OptionSpec<T> {
  return { ...input, default: undefined, required: true, repeatable: false };
}

/** A switch: false unless given. */
export function toggle(flag: string, help: string): OptionSpec<boolean> {
  return { flag, help, parse: parseBoolean, default: false, required: false, repeatable: false };
}

/** An option that may be given several times, or once with commas in the environment. */
export function repeatable<T>(input: OptionInput<T>): OptionSpec<readonly T[]> {
  return { flag: input.flag, help: input.help, parse: (text) => text.split(",").filter(Boolean).map(input.parse), default: [], required: false, repeatable: true };
}

/** An option of the peer's that changes nothing here: taken, so that its command lines work, and told when it is given. */
export function ignored(flag: string): OptionSpec<string | null> {
  return { flag, help: IGNORED, parse: (text) => text, default: null, required: false, repeatable: false };
}

const IGNORED = "accepted for the peer's sake; changes nothing";

/** Flags that were given and change nothing. */
export function ignoredFlags(table: OptionTable, values: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(table).flatMap(([name, spec]) => (spec.help === IGNORED && values[name] !== null && values[name] !== false ? [`--${longName(spec)}`] : []));
}

/** A table of options that change nothing, from their flags. */
export function ignoredOptions(flags: readonly string[]): Readonly<Record<string, OptionSpec<string | null>>> {
  return Object.fromEntries(flags.map((flag) => [`ignored ${flag}`, ignored(flag)]));
}

export function parseBoolean(text: string): boolean {
  if (text === "true" || text === "1") return true;
  if (text === "false" || text === "0") return false;
  throw new StrataError("fix-input", "usage", `"${text}" is neither true nor false`);
}

export function longName(spec: OptionSpec<unknown>): string {
  const match = /--([a-z0-9-]+)/.exec(spec.flag);
  if (match === null) throw new StrataError("fix-input", "usage", `option "${spec.flag}" has no long name`);
  return match[1] as string;
}

export function environmentName(program: string, spec: OptionSpec<unknown>): string {
  return `STRATA_${program}_${longName(spec)}`.replace(/[^A-Za-z0-9]/g, "_").toUpperCase();
}

export interface ParseContext {
  readonly program: string;
  readonly description: string;
  readonly argv: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Where help is printed. */
  readonly print: (text: string) => void;
}

/** Help was asked for and printed: nothing else is to be done. */
export class HelpShown extends Error {}

function addOption(command: Command, program: string, spec: OptionSpec<unknown>): void {
  const one = new Option(spec.flag, `${spec.help} [env ${environmentName(program, spec)}]`);
  if (spec.repeatable) one.argParser((text: string, before: string[] | undefined) => [...(before ?? []), text]);
  command.addOption(one);
}

/** Values of the table. @throws StrataError fix-input `usage`; HelpShown after printing help */
export function parseOptions<T extends OptionTable>(table: T, context: ParseContext): OptionValues<T> {
  const command = new Command(context.program).description(context.description).exitOverride().allowExcessArguments(false);
  command.configureOutput({ writeOut: context.print, writeErr: () => undefined });
  for (const spec of Object.values(table)) addOption(command, context.program, spec);
  try {
    command.parse([...context.argv], { from: "user" });
  } catch (error) {
    if (error instanceof CommanderError && error.code === "commander.helpDisplayed") throw new HelpShown();
    throw new StrataError("fix-input", "usage", `${describeError(error).replace(/^error: /, "")} (see ${context.program} --help)`);
  }
  const given = command.opts<Record<string, string | boolean | string[] | undefined>>();
  const values: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(table)) values[name] = valueOf(spec, given, context);
  return values as OptionValues<T>;
}

/** Commander takes `--no-x` for the negation of `x` (true unless negated): here it is a switch of its own. */
function givenValue(name: string, given: Record<string, string | boolean | string[] | undefined>): string | boolean | string[] | undefined {
  const camel = (text: string): string => text.replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
  if (!name.startsWith("no-")) return given[camel(name)];
  return given[camel(name.slice("no-".length))] === false ? true : undefined;
}

function valueOf(spec: OptionSpec<unknown>, given: Record<string, string | boolean | string[] | undefined>, context: ParseContext): unknown {
  const fromFlag = givenValue(longName(spec), given);
  const text = fromFlag === undefined ? context.environment[environmentName(context.program, spec)] : Array.isArray(fromFlag) ? fromFlag.join(",") : String(fromFlag);
  if (text === undefined) {
    if (spec.required) throw new StrataError("fix-input", "usage", `--${longName(spec)} is required (see ${context.program} --help)`);
    return spec.default;
  }
  try {
    return spec.parse(text);
  } catch (error) {
    throw new StrataError("fix-input", "usage", `--${longName(spec)}: ${describeError(error)}`, { cause: error });
  }
}
