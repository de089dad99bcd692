/**
 * Child processes: started as another user if need be, their output read line by line (under a bound), stopped politely and
 * then not. A child started as a process group leader can be stopped together with all it started.
 */
import { StrataError } from "../kit/errors.ts";

export interface ProcessOptions {
  readonly command: string;
  readonly args?: readonly string[];
  readonly cwd?: string;
  /** The whole environment of the child, nothing inherited; the parent's unless given. */
  readonly env?: Readonly<Record<string, string>>;
  readonly user?: { readonly uid: number; readonly gid: number };
  /** Each line of its standard output, without the line end; /dev/null unless given. */
  readonly onStdoutLine?: (line: string) => void;
  readonly onStderrLine?: (line: string) => void;
  /** Makes it the leader of a process group and session of its own. */
  readonly ownGroup?: boolean;
}

export interface ProcessExit {
  /** null when a signal ended it. */
  readonly exitCode: number | null;
  readonly signal: string | null;
}

export interface ChildProcess {
  readonly pid: number;
  /** After its last line of output was handed on. */
  readonly exited: Promise<ProcessExit>;
  /** To the process, or to its whole group when it has one. A no-op on one that ended. */
  signal(name: NodeJS.Signals): void;
  /** `name` (SIGTERM unless given), and SIGKILL after `graceMs`. */
  stop(options: { readonly graceMs: number; readonly name?: NodeJS.Signals }): Promise<ProcessExit>;
}

/** Longer lines are cut: a child must not be able to fill our memory. */
const MAX_LINE_BYTES = 64 * 1024;

/** @throws StrataError fix-input `cannot-start-process` */
export function startProcess(options: ProcessOptions): ChildProcess {
  const child = spawn(options);
  const output = Promise.all([
    readLines(child.stdout ?? null, options.onStdoutLine),
    readLines(child.stderr ?? null, options.onStderrLine),
  ]);
  let ended = false;
  const exited = (async (): Promise<ProcessExit> => {
    await child.exited;
    ended = true;
    // A grandchild may hold the pipe open for ever: give its output a moment, not more.
    await Promise.race([output, Bun.sleep(1000)]);
    const signal = child.signalCode === null ? null : String(child.signalCode);
    return { exitCode: signal === null ? child.exitCode : null, signal };
  })();
  const signal = (name: NodeJS.Signals): void => {
    if (!ended || options.ownGroup === true) signalProcess(options.ownGroup === true ? -child.pid : child.pid, name);
  };
  return {
    pid: child.pid,
    exited,
    signal,
    async stop({ graceMs, name }) {
      signal(name ?? "SIGTERM");
      const timer = setTimeout(() => signal("SIGKILL"), graceMs);
      try {
        return await exited;
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

/** Whether a process with this id exists. A zombie does. */
export function isProcessAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    // It is there, but somebody else's.
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

/** A process that has ended is no error. @param pid negative for a process group */
export function signalProcess(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ESRCH") return;
    throw new StrataError("forbidden", "cannot-signal-process", `cannot send ${name} to process ${pid}`, { cause });
  }
}

function spawn(options: ProcessOptions): Bun.Subprocess<"ignore", "pipe" | "ignore", "pipe" | "ignore"> {
  try {
    return Bun.spawn([options.command, ...(options.args ?? [])], {
      stdin: "ignore",
      stdout: options.onStdoutLine === undefined ? "ignore" : "pipe",
      stderr: options.onStderrLine === undefined ? "ignore" : "pipe",
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.env === undefined ? {} : { env: { ...options.env } }),
      ...(options.user === undefined ? {} : { uid: options.user.uid, gid: options.user.gid }),
      detached: options.ownGroup === true,
    });
  } catch (cause) {
    throw new StrataError("fix-input", "cannot-start-process", `cannot start ${options.command}`, { cause, details: { path: options.command } });
  }
}

async function readLines(stream: ReadableStream<Uint8Array> | null, onLine: ((line: string) => void) | undefined): Promise<void> {
  if (stream === null || onLine === undefined) return;
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of stream) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) onLine(line.slice(0, MAX_LINE_BYTES));
    // The head of an overlong line is kept; what follows it is dropped up to its end.
    if (rest.length > MAX_LINE_BYTES) rest = rest.slice(0, MAX_LINE_BYTES);
  }
  if (rest !== "") onLine(rest);
}
