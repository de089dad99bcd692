/**
 * SQL files as the redo check runs them. Statements end with a semicolon at a line's end, outside dollar quotes.
 * Comment lines starting with `-- @` direct the statements after them:
 *
 *   -- @session b     which connection runs them (`a` unless said)
 *   -- @async         the next statement is started and not waited for
 *   -- @join b        wait for session b's statement, whatever becomes of it
 *   -- @wait-lock b   wait until session b waits for a lock
 *   -- @from 15       the next statement only from this major on; `@until 16` likewise
 *   -- @error         the next statement is expected to fail
 */
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import postgres from "postgres";

export interface Step {
  readonly session: string;
  readonly kind: "run" | "start" | "join" | "wait-lock";
  readonly sql: string;
  readonly expectError: boolean;
  readonly from: number;
  readonly until: number;
  readonly line: number;
}

export interface Script {
  readonly name: string;
  readonly steps: readonly Step[];
}

const NO_LIMIT = { expectError: false, from: 0, until: Number.MAX_SAFE_INTEGER };

/** @throws Error naming the line of an unknown directive or an unfinished statement */
export function parseScript(name: string, text: string): Script {
  const steps: Step[] = [];
  let session = "a";
  let kind: "run" | "start" = "run";
  let limits = { ...NO_LIMIT };
  let sql = "";
  let inQuote = false;
  text.split("\n").forEach((line, index) => {
    const directive = sql === "" ? /^-- @([a-z-]+)\s*(\S*)$/.exec(line) : null;
    if (directive !== null) {
      const [, word, value] = directive;
      if (word === "session") session = value;
      else if (word === "async") kind = "start";
      else if (word === "join" || word === "wait-lock") steps.push({ session: value, kind: word, sql: "", ...NO_LIMIT, line: index + 1 });
      else if (word === "from") limits.from = Number(value);
      else if (word === "until") limits.until = Number(value);
      else if (word === "error") limits.expectError = true;
      else throw new Error(`${name}:${index + 1}: unknown directive @${word}`);
      return;
    }
    if (!inQuote && (line.trim() === "" || line.startsWith("--"))) return;
    sql += `${line}\n`;
    if ((line.split("$$").length - 1) % 2 === 1) inQuote = !inQuote;
    if (inQuote || !line.trimEnd().endsWith(";")) return;
    steps.push({ session, kind, sql, ...limits, line: index + 1 });
    sql = "";
    kind = "run";
    limits = { ...NO_LIMIT };
  });
  if (sql !== "") throw new Error(`${name}: the last statement has no end`);
  return { name, steps };
}

/** The `.sql` files of a directory, by name. */
export async function readScripts(directory: string): Promise<Script[]> {
  const names = (await readdir(directory)).filter((name) => name.endsWith(".sql")).sort();
  return await Promise.all(names.map(async (name) => parseScript(name, await readFile(join(directory, name), "utf8"))));
}

const LOCK_WAIT_MS = 10_000;

/** Named connections to one server, each running one statement at a time. */
export class Sessions {
  readonly #connect: () => postgres.Sql;
  readonly #open = new Map<string, { sql: postgres.Sql; running: Promise<unknown> | null; pid: number }>();

  constructor(socketDirectory: string, database = "postgres") {
    this.#connect = () =>
      postgres({ host: socketDirectory, username: "postgres", database, max: 1, onnotice: () => {}, connection: { application_name: "redo" } });
  }

  async #session(name: string): Promise<{ sql: postgres.Sql; running: Promise<unknown> | null; pid: number }> {
    const known = this.#open.get(name);
    if (known !== undefined) return known;
    const sql = this.#connect();
    const [row] = await sql`SELECT pg_backend_pid() AS pid, setseed(0.5)`;
    const session = { sql, running: null, pid: Number(row.pid) };
    this.#open.set(name, session);
    return session;
  }

  async run(name: string, statement: string): Promise<void> {
    await (await this.#session(name)).sql.unsafe(statement);
  }

  async query(name: string, statement: string): Promise<readonly Record<string, unknown>[]> {
    return await (await this.#session(name)).sql.unsafe(statement);
  }

  async start(name: string, statement: string): Promise<void> {
    const session = await this.#session(name);
    session.running = session.sql.unsafe(statement).then(() => null, (error: unknown) => error);
  }

  async join(name: string): Promise<void> {
    await (await this.#session(name)).running;
  }

  async waitForLock(name: string): Promise<void> {
    const { pid } = await this.#session(name);
    const deadline = performance.now() + LOCK_WAIT_MS;
    while (performance.now() < deadline) {
      const rows = await this.query("watch", `SELECT 1 FROM pg_stat_activity WHERE pid = ${pid} AND wait_event_type = 'Lock'`);
      if (rows.length > 0) return;
      await Bun.sleep(2);
    }
    throw new Error(`session ${name} did not come to wait for a lock`);
  }

  async close(): Promise<void> {
    await Promise.all([...this.#open.values()].map(({ sql }) => sql.end({ timeout: 1 })));
  }
}

async function runStep(sessions: Sessions, step: Step): Promise<void> {
  if (step.kind === "join") return await sessions.join(step.session);
  if (step.kind === "wait-lock") return await sessions.waitForLock(step.session);
  if (step.kind === "start") return await sessions.start(step.session, step.sql);
  try {
    await sessions.run(step.session, step.sql);
  } catch (error) {
    if (step.expectError) return;
    throw error;
  }
  if (step.expectError) throw new Error("no error came");
}

/** Runs a script from its first to its last step. @throws Error naming file and line */
export async function runScript(sessions: Sessions, script: Script, major: number): Promise<void> {
  for (const step of script.steps) {
    if (major < step.from || major > step.until) continue;
    try {
      await runStep(sessions, step);
    } catch (error) {
      throw new Error(`${script.name}:${step.line}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
  }
}
