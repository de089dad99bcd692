/** The two ways to run a role: a process of its own, as in production, or inside this one, for debugging. */
import { describeError, StrataError } from "../../kit/errors.ts";
import { versionLine } from "../../kit/version.ts";
import { createLogger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";
import { signalProcess, startProcess } from "../../platform/processes.ts";
import { ROLE_PROGRAMS } from "../roles/role-programs.ts";
import type { RunningRole } from "../roles/run-role.ts";
import type { Launch } from "./child.ts";

const STOP_GRACE_MS = 30_000;

function childEnvironment(): Record<string, string> {
  const environment: Record<string, string> = { STRATA_SUPERVISED: "1" };
  for (const [name, value] of Object.entries(process.env)) if (value !== undefined) environment[name] = value;
  return environment;
}

/** How to start this same program again: the executable alone, or Bun with the entry file. */
export function ownProgram(): string[] {
  const compiled = Bun.main.startsWith("/$bunfs/");
  return compiled ? [process.execPath] : [process.execPath, Bun.main];
}

/** @param program the executable, or Bun and the entry file; @param args begin with `--role NAME` */
export function asProcess(program: readonly string[], args: readonly string[], platform: Platform): Launch {
  return (onLine) => {
    const [command, ...before] = program;
    if (command === undefined) throw new StrataError("fix-input", "cannot-start-process", "no program was given");
    // A group of its own, so that Ctrl-C in a terminal reaches the supervisor alone and the order of stopping is its own.
    const child = startProcess({ command, args: [...before, ...args], env: childEnvironment(), ownGroup: true, onStdoutLine: onLine, onStderrLine: onLine });
    return {
      pid: child.pid,
      ended: child.exited.then((exit) => String(exit.exitCode ?? exit.signal)),
      async stop() {
        // To the role alone: it stops what it started (a PostgreSQL, say) in its own order. Only the last resort is for all.
        signalProcess(child.pid, "SIGTERM");
        const timer = platform.clock.after(STOP_GRACE_MS, () => child.signal("SIGKILL"));
        await child.exited;
        timer.cancel();
      },
    };
  };
}

/** @param args begin with `--role NAME` */
export function inThisProcess(args: readonly string[], platform: Platform): Launch {
  return (onLine) => {
    const [, name = "", ...argv] = args;
    const log = createLogger({ role: name, level: "info", format: "pretty", write: (line) => onLine(line.trimEnd()) });
    const stopped = Promise.withResolvers<void>();
    const starting = (async (): Promise<RunningRole> => {
      const program = await ROLE_PROGRAMS[name]?.();
      const role = await program?.startHere(argv, { environment: process.env, platform, log, version: versionLine(name) });
      if (role === undefined || role === null) throw new StrataError("fix-input", "usage", `"${name}" left no role running`);
      return role;
    })();
    const ended = starting
      .then((role) => Promise.race([stopped.promise, role.ended ?? new Promise<void>(() => undefined)]))
      .then(() => "stopped")
      .catch((error: unknown) => {
        log.error("role ended", { error });
        return describeError(error);
      });
    return {
      pid: null,
      ended,
      async stop() {
        const role = await starting.catch(() => null);
        await role?.stop();
        stopped.resolve();
        await ended;
      },
    };
  };
}
