/** What running a role as a process has in common: options, log, platform, signals, exit code. */
import type { Logger } from "../../observability/log.ts";
import { createLogger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";
import { withPowerLossShadow } from "../../platform/power-loss/from-environment.ts";
import { RealFiles } from "../../platform/real/files.ts";
import { realPlatform } from "../../platform/real/real-platform.ts";
import { versionLine } from "../../kit/version.ts";
import { ignoredFlags, type OptionTable, type OptionValues, parseOptions } from "../options/option-table.ts";
import type { CommandLine, Run, WorkerUrls } from "../run.ts";
import type { COMMON_OPTIONS } from "./common-options.ts";

export interface RoleContext {
  readonly environment: CommandLine["environment"];
  readonly platform: Platform;
  readonly log: Logger;
  readonly version: string;
  /** Absent where work must not leave this thread. */
  readonly workers?: WorkerUrls;
}

export interface RunningRole {
  stop(): Promise<void>;
  /** On SIGHUP: takes keys and certificates that were replaced. */
  reload?(): Promise<void>;
  /** Settles when the role ends by itself: with an error when it had to. */
  readonly ended?: Promise<void>;
}

export interface RoleSpec<T extends OptionTable & typeof COMMON_OPTIONS> {
  readonly name: string;
  readonly description: string;
  readonly options: T;
  /** Starts the role, or does what was asked instead (null: nothing is left running). */
  readonly start: (values: OptionValues<T>, context: RoleContext) => Promise<RunningRole | null>;
}

const PARENT_POLL_MS = 500;

/** A role run by a supervisor must not outlive it: it stops when its parent is gone. */
function watchSupervisor(platform: Platform, onGone: () => void): void {
  const parent = process.ppid;
  const look = (): void => {
    if (process.ppid === parent) platform.clock.after(PARENT_POLL_MS, look);
    else onGone();
  };
  look();
}

/** A role as a program: run as a process of its own, or started inside this one. */
export interface RoleProgram {
  readonly run: Run;
  /** Starts it in this process, with a command line. Null: it did what was asked, and nothing is left running. */
  readonly startHere: (argv: readonly string[], context: RoleContext) => Promise<RunningRole | null>;
}

/** Resolves with a signal's name when one arrives that asks to stop. A second one ends the process at once. */
function stopSignal(log: Logger): { received: Promise<string>; dispose(): void } {
  const { promise, resolve } = Promise.withResolvers<string>();
  let first = true;
  const handler = (signal: NodeJS.Signals): void => {
    if (!first) process.exit(130);
    first = false;
    log.info("stopping", { signal });
    resolve(signal);
  };
  process.on("SIGTERM", handler);
  process.on("SIGINT", handler);
  return {
    received: promise,
    dispose() {
      process.off("SIGTERM", handler);
      process.off("SIGINT", handler);
    },
  };
}

function optionsOf<T extends OptionTable & typeof COMMON_OPTIONS>(spec: RoleSpec<T>, line: Pick<CommandLine, "argv" | "environment">): OptionValues<T> {
  const { name: program, description, options } = spec;
  return parseOptions(options, { program, description, argv: line.argv, environment: line.environment, print: (text) => void process.stdout.write(text) });
}

export function roleProgram<T extends OptionTable & typeof COMMON_OPTIONS>(spec: RoleSpec<T>): RoleProgram {
  return {
    run: (line) => runRole(spec, line),
    startHere: (argv, context) => spec.start(optionsOf(spec, { argv, environment: context.environment }), context),
  };
}

/** Runs a role until a signal or its own end. @returns the exit code */
async function runRole<T extends OptionTable & typeof COMMON_OPTIONS>(program: RoleSpec<T>, line: CommandLine): Promise<number> {
  const values = optionsOf(program, line);
  const common = values as OptionValues<typeof COMMON_OPTIONS>;
  const log = createLogger({ role: program.name, level: common.logLevel, format: common.logFormat === "json" ? "json" : "pretty" });
  const withoutEffect = ignoredFlags(program.options, values as Readonly<Record<string, unknown>>);
  if (withoutEffect.length > 0) log.warn("options that change nothing here", { options: withoutEffect.join(" ") });
  const signal = stopSignal(log);
  const platform = withPowerLossShadow(realPlatform(), line.environment);
  const orphaned = Promise.withResolvers<void>();
  if (line.environment.STRATA_SUPERVISED === "1") watchSupervisor(platform, () => orphaned.resolve());
  // Threads have files of their own: what a test's shadow of the disk must see stays here.
  const workers = platform.files instanceof RealFiles ? line.workers : undefined;
  const role = await program.start(values, { environment: line.environment, platform, log, version: versionLine(program.name), workers });
  if (role === null) return 0;
  const onHangup = (): void => void role.reload?.();
  process.on("SIGHUP", onHangup);
  const failure = await Promise.race([signal.received.then(() => null), orphaned.promise.then(() => null), (role.ended ?? new Promise<void>(() => undefined)).then(() => null, (error: unknown) => ({ error }))]);
  if (failure !== null) log.error("role ended", { error: failure.error });
  await role.stop();
  process.off("SIGHUP", onHangup);
  signal.dispose();
  log.info("stopped");
  return failure === null ? 0 : 1;
}
