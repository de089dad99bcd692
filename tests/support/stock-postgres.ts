/**
 * A private, unmodified PostgreSQL server for tests: its own directory below the system's temporary one, reached through a
 * unix socket, run as an unprivileged user when the tests run as root.
 */
import { chownSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync, chmodSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import postgres from "postgres";
import type { PgMajor } from "../../src/postgres/versions/major.ts";

export type StockMajor = Extract<PgMajor, 14 | 15 | 16 | 17>;
export const STOCK_MAJORS: readonly StockMajor[] = [14, 15, 16, 17];

const UNPRIVILEGED = 65534;
const asRoot = process.getuid?.() === 0;

export interface StockOptions {
  readonly major: StockMajor;
  /** Lines of postgresql.conf. */
  readonly conf?: readonly string[];
  readonly initdbArgs?: readonly string[];
  /** Where initdb, pg_ctl and postgres are; default: the npm package of that major version. */
  readonly binaries?: string;
}

function nativeDirectory(major: StockMajor): string {
  const directory = join(import.meta.dir, "../../node_modules", `pg${major}`, "native");
  makeLibraryLinks(directory);
  return directory;
}

/** The package's install script does this where it was allowed to run. */
function makeLibraryLinks(directory: string): void {
  const links = JSON.parse(readFileSync(join(directory, "pg-symlinks.json"), "utf8")) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const from = join(directory, "..", target);
    if (!existsSync(from)) symlinkSync(relative(dirname(target), source), from);
  }
}

async function run(command: readonly string[]): Promise<void> {
  const user = asRoot ? { uid: UNPRIVILEGED, gid: UNPRIVILEGED } : {};
  const child = Bun.spawn([...command], { stdin: "ignore", stdout: "pipe", stderr: "pipe", cwd: tmpdir(), ...user });
  const [output, errors, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${output}${errors}`);
}

export class StockPostgres {
  readonly major: StockMajor;
  /** Holds `data`, `log` and the socket. */
  readonly directory: string;
  readonly #binaries: string;
  #running = false;
  #sql: postgres.Sql | null = null;

  private constructor(options: StockOptions, directory: string) {
    this.major = options.major;
    this.directory = directory;
    this.#binaries = options.binaries ?? join(nativeDirectory(options.major), "bin");
  }

  static async create(options: StockOptions): Promise<StockPostgres> {
    const server = new StockPostgres(options, makeDirectory(options.major));
    const args = ["-D", server.dataDirectory, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"];
    await run([join(server.#binaries, "initdb"), ...args, ...(options.initdbArgs ?? [])]);
    server.configure(["listen_addresses = ''", "fsync = off", `unix_socket_directories = '${server.directory}'`, ...(options.conf ?? [])]);
    return server;
  }

  /** A server in a data directory that `fill` makes, given its path: empty, but there. */
  static async inDirectory(options: StockOptions, fill: (dataDirectory: string) => Promise<void>): Promise<StockPostgres> {
    const server = new StockPostgres(options, makeDirectory(options.major));
    mkdirSync(server.dataDirectory, { mode: 0o700 });
    await fill(server.dataDirectory);
    server.configure(["listen_addresses = ''", "fsync = off", `unix_socket_directories = '${server.directory}'`, ...(options.conf ?? [])]);
    if (asRoot) chownTree(server.directory);
    return server;
  }

  /** A copy of a stopped server's directory, with the files whose path `filter` accepts. */
  copy(filter: (path: string) => boolean = () => true): StockPostgres {
    const directory = makeDirectory(this.major);
    cpSync(this.dataDirectory, join(directory, "data"), { recursive: true, filter });
    const copy = new StockPostgres({ major: this.major, binaries: this.#binaries }, directory);
    copy.configure([`unix_socket_directories = '${directory}'`]);
    if (asRoot) chownTree(directory);
    chmodSync(copy.dataDirectory, 0o700);
    return copy;
  }

  get dataDirectory(): string {
    return join(this.directory, "data");
  }

  get log(): string {
    const path = join(this.directory, "log");
    return existsSync(path) ? readFileSync(path, "utf8") : "";
  }

  configure(lines: readonly string[]): void {
    writeFileSync(join(this.dataDirectory, "postgresql.conf"), `${lines.join("\n")}\n`, { flag: "a" });
  }

  /** Writes a file of the data directory, owned by the server's user. */
  writeDataFile(path: string, bytes: Uint8Array): void {
    const whole = join(this.dataDirectory, path);
    writeFileSync(whole, bytes, { mode: 0o600 });
    if (asRoot) chownSync(whole, UNPRIVILEGED, UNPRIVILEGED);
  }

  readDataFile(path: string): Uint8Array {
    return new Uint8Array(readFileSync(join(this.dataDirectory, path)));
  }

  /** Names of the WAL segments, in order. */
  walSegments(): string[] {
    return readdirSync(join(this.dataDirectory, "pg_wal")).filter((name) => /^[0-9A-F]{24}$/.test(name)).sort();
  }

  async start(): Promise<void> {
    try {
      await run([join(this.#binaries, "pg_ctl"), "-D", this.dataDirectory, "-l", join(this.directory, "log"), "-w", "-t", "180", "start"]);
    } catch (error) {
      throw new Error(`the server's log ends with:\n${this.log.slice(-2000)}`, { cause: error });
    }
    this.#running = true;
  }

  sql(): postgres.Sql {
    this.#sql ??= postgres({ host: this.directory, username: "postgres", database: "postgres", max: 4, onnotice: () => {} });
    return this.#sql;
  }

  async stop(mode: "fast" | "immediate" = "fast"): Promise<void> {
    await this.#sql?.end({ timeout: 5 });
    this.#sql = null;
    if (!this.#running) return;
    this.#running = false;
    await run([join(this.#binaries, "pg_ctl"), "-D", this.dataDirectory, "-m", mode, "-w", "-t", "180", "stop"]);
  }

  /** Stops the server and removes its directory. */
  async remove(): Promise<void> {
    try {
      await this.stop("immediate");
    } finally {
      rmSync(this.directory, { recursive: true, force: true });
    }
  }
}

function makeDirectory(major: StockMajor): string {
  const directory = mkdtempSync(join(tmpdir(), `strata-pg${major}-`));
  if (asRoot) chownSync(directory, UNPRIVILEGED, UNPRIVILEGED);
  return directory;
}

function chownTree(directory: string): void {
  chownSync(directory, UNPRIVILEGED, UNPRIVILEGED);
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) chownTree(path);
    else if (entry.isFile()) chownSync(path, UNPRIVILEGED, UNPRIVILEGED);
  }
}
