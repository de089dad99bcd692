/**
 * A PostgreSQL server as our child process: started with settings on its command line (where ALTER SYSTEM cannot undo
 * them), watched until it is ready, stopped by the signals its manual names.
 *
 * Readiness is what pg_ctl looks at: the status line of postmaster.pid.
 * Source: PostgreSQL src/include/utils/pidfile.h, src/bin/pg_ctl/pg_ctl.c (wait_for_postmaster_start).
 */
import { existsSync } from "node:fs";
import { chmod, readdir, readFile, readlink, rm } from "node:fs/promises";
import { join } from "node:path";
import { StrataError } from "../kit/errors.ts";
import { type PostgresBinaries, type PostgresUser, giveTo, postgresEnvironment, reachableBinaries } from "./postgres-binaries.ts";
import { signalProcess } from "./processes.ts";

export interface PostgresProcessOptions {
  readonly binaries: PostgresBinaries;
  readonly user: PostgresUser | null;
  readonly dataDirectory: string;
  /** Where it listens for TCP; an empty string: nowhere. */
  readonly listenAddresses: string;
  readonly port: number;
  /** Directory for its Unix socket; null: none. */
  readonly socketDirectory: string | null;
  /** Given as `-c name=value`. */
  readonly settings: Readonly<Record<string, string>>;
  /** Each line of its log. */
  readonly onLogLine?: (line: string) => void;
  /** Until it accepts connections; 60 s unless given. */
  readonly startTimeoutMs?: number;
}

export type StopMode = "smart" | "fast" | "immediate";

export interface PostgresExit {
  readonly exitCode: number | null;
  readonly signal: string | null;
}

export interface PostgresProcess {
  readonly pid: number;
  readonly port: number;
  readonly socketDirectory: string | null;
  readonly exited: Promise<PostgresExit>;
  /** The newest lines of its log, oldest first. */
  logTail(): readonly string[];
  /** Asks it to stop and waits; after `timeoutMs` an immediate stop, and after 5 s more SIGKILL. */
  stop(mode: StopMode, timeoutMs?: number): Promise<PostgresExit>;
  /** SIGHUP: read the configuration files again. */
  reload(): void;
}

const SIGNALS: Readonly<Record<StopMode, NodeJS.Signals>> = { smart: "SIGTERM", fast: "SIGINT", immediate: "SIGQUIT" };
const START_TIMEOUT_MS = 60_000;
const POLL_MS = 10;
const LOG_TAIL_LINES = 2_000;
const LOG_LINE_MAX = 16 * 1024;
const STATUS_LINE = 7;
const IMMEDIATE_TIMEOUT_MS = 5_000;

/** @throws StrataError unavailable `postgres-start-failed` with the end of its log, `postgres-start-timeout` */
export async function startPostgres(options: PostgresProcessOptions): Promise<PostgresProcess> {
  const { user, dataDirectory } = options;
  const binaries = await reachableBinaries(options.binaries, user);
  await chmod(dataDirectory, 0o700);
  await giveTo(user, dataDirectory);
  await stopStalePostgres(dataDirectory);
  await removeStaleSocketLock(options);
  const child = Bun.spawn([join(binaries.binDirectory, "postgres"), ...commandLine(options)], {
    stdin: "ignore", stdout: "pipe", stderr: "pipe", cwd: dataDirectory,
    // Its own libpq, as a standby's, looks at home for certificates: ours is not its user's, and one it may not read makes it fail.
    env: { ...postgresEnvironment(), HOME: dataDirectory },
    ...(user === null ? {} : { uid: user.uid, gid: user.gid }),
  });
  const server = new ChildServer(child, options);
  await server.ready(dataDirectory, options.startTimeoutMs ?? START_TIMEOUT_MS);
  return server;
}

function commandLine(options: PostgresProcessOptions): string[] {
  const settings: Record<string, string> = {
    listen_addresses: options.listenAddresses,
    unix_socket_directories: options.socketDirectory ?? "",
    port: String(options.port),
    // The log is ours to read, and its words are matched on.
    logging_collector: "off",
    log_destination: "stderr",
    lc_messages: "C",
    ...options.settings,
  };
  return ["-D", options.dataDirectory, ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])];
}

/**
 * A server left behind by a killed parent would go on writing into the directory we are about to use. Its pid file goes with it:
 * to PostgreSQL one that names a zombie, or another process with the same number, means a running server, and it refuses to start.
 */
export async function stopStalePostgres(dataDirectory: string): Promise<void> {
  const path = join(dataDirectory, "postmaster.pid");
  const lines = (await readFile(path, "utf8").catch(() => "")).split("\n");
  const pid = Number(lines[0]);
  if (!Number.isInteger(pid) || pid <= 1 || lines[1] !== dataDirectory) return;
  for (const signal of ["SIGQUIT", "SIGKILL"] as const) {
    if (!(await isServerOf(pid, dataDirectory))) break;
    signalProcess(pid, signal);
    await until(async () => !(await isServerOf(pid, dataDirectory)));
  }
  // Backends outlive a killed postmaster for a moment; while one is there the file stays, and PostgreSQL refuses.
  if (await until(async () => !(await isInUse(dataDirectory)))) await rm(path, { force: true });
}

/** The lock of its socket names a process too, and a zombie is enough. A server that lives still has its pid file. */
async function removeStaleSocketLock({ socketDirectory, port, dataDirectory }: PostgresProcessOptions): Promise<void> {
  if (socketDirectory === null || existsSync(join(dataDirectory, "postmaster.pid"))) return;
  const path = join(socketDirectory, `.s.PGSQL.${port}.lock`);
  const [, owner] = (await readFile(path, "utf8").catch(() => "")).split("\n");
  if (owner === dataDirectory) await rm(path, { force: true });
}

async function isServerOf(pid: number, dataDirectory: string): Promise<boolean> {
  const words = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0");
  return words[0].endsWith("postgres") && words.includes(dataDirectory);
}

/** Whether a process works in the directory, as every process of a server does. */
async function isInUse(directory: string): Promise<boolean> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const directories = await Promise.all(pids.map((pid) => readlink(`/proc/${pid}/cwd`).catch(() => "")));
  return directories.includes(directory);
}

/** False when the condition did not come true in time. */
async function until(condition: () => Promise<boolean>): Promise<boolean> {
  for (let waitedMs = 0; waitedMs < IMMEDIATE_TIMEOUT_MS; waitedMs += POLL_MS) {
    if (await condition()) return true;
    await Bun.sleep(POLL_MS);
  }
  return false;
}

class ChildServer implements PostgresProcess {
  readonly pid: number;
  readonly port: number;
  readonly socketDirectory: string | null;
  readonly exited: Promise<PostgresExit>;
  readonly #child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  readonly #lines: string[] = [];
  readonly #onLogLine: ((line: string) => void) | undefined;
  readonly #logRead: Promise<unknown>;
  #exit: PostgresExit | null = null;

  constructor(child: Bun.Subprocess<"ignore", "pipe", "pipe">, options: PostgresProcessOptions) {
    this.#child = child;
    this.pid = child.pid;
    this.port = options.port;
    this.socketDirectory = options.socketDirectory;
    this.#onLogLine = options.onLogLine;
    this.#logRead = Promise.all([this.#readLog(child.stdout), this.#readLog(child.stderr)]);
    this.exited = child.exited.then(() => {
      const exit: PostgresExit = { exitCode: child.exitCode, signal: child.signalCode === null ? null : String(child.signalCode) };
      this.#exit = exit;
      return exit;
    });
  }

  logTail(): readonly string[] {
    return this.#lines;
  }

  reload(): void {
    this.#child.kill("SIGHUP");
  }

  async ready(dataDirectory: string, timeoutMs: number): Promise<void> {
    const deadline = performance.now() + timeoutMs;
    while (this.#exit === null) {
      const lines = (await readFile(join(dataDirectory, "postmaster.pid"), "utf8").catch(() => "")).split("\n");
      const status = (lines[STATUS_LINE] ?? "").trim();
      if (lines[0] === String(this.pid) && (status === "ready" || status === "standby")) return;
      if (performance.now() > deadline) {
        await this.stop("immediate");
        throw new StrataError("unavailable", "postgres-start-timeout", `PostgreSQL was not ready within ${timeoutMs} ms; its log ends: ${this.#logEnd()}`);
      }
      await Bun.sleep(POLL_MS);
    }
    // Processes it leaves behind may keep the pipe open: do not wait for its end for ever.
    await Promise.race([this.#logRead, Bun.sleep(500)]);
    const { exitCode, signal } = this.#exit;
    throw new StrataError("unavailable", "postgres-start-failed", `PostgreSQL ended at its start (${signal ?? `exit code ${exitCode}`}): ${this.#logEnd()}`);
  }

  async stop(mode: StopMode, timeoutMs = 30_000): Promise<PostgresExit> {
    const stages: [NodeJS.Signals, number][] = [[SIGNALS[mode], timeoutMs], ["SIGQUIT", IMMEDIATE_TIMEOUT_MS], ["SIGKILL", IMMEDIATE_TIMEOUT_MS]];
    for (const [signal, waitMs] of stages) {
      if (this.#exit !== null) return this.#exit;
      this.#child.kill(signal);
      const exit = await within(this.exited, waitMs);
      if (exit !== null) return exit;
    }
    return await this.exited;
  }

  #logEnd(): string {
    return this.#lines.slice(-8).join(" | ") || "(nothing logged)";
  }

  async #readLog(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of stream) {
      rest += decoder.decode(chunk, { stream: true });
      const lines = rest.split("\n");
      rest = (lines.pop() ?? "").slice(0, LOG_LINE_MAX);
      for (const line of lines) this.#logged(line);
    }
    if (rest !== "") this.#logged(rest);
  }

  #logged(line: string): void {
    this.#lines.push(line.slice(0, LOG_LINE_MAX));
    if (this.#lines.length > LOG_TAIL_LINES) this.#lines.splice(0, this.#lines.length - LOG_TAIL_LINES);
    this.#onLogLine?.(line);
  }
}

async function within<Value>(promise: Promise<Value>, timeoutMs: number): Promise<Value | null> {
  let timer: Timer | undefined;
  const timeout = new Promise<null>((resolve) => (timer = setTimeout(resolve, timeoutMs, null)));
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
