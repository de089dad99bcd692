/**
 * The extended query protocol, for clients that use it for everything (psycopg, JDBC, prepared statements of others): statements
 * without parameters whose results are text. A query runs when its result is first asked for, by Describe or by Execute, and
 * once. COPY needs a simple query.
 *
 * Source: PostgreSQL manual, "Extended Query"; src/backend/tcop/postgres.c (exec_parse_message, exec_bind_message,
 * exec_execute_message).
 */
import { ByteReader } from "../kit/bytes.ts";
import { StrataError } from "../kit/errors.ts";
import { writeCommandComplete, writeDataRow, writeRowDescription } from "./backend-messages.ts";
import type { PgFrame } from "./framer.ts";
import type { PgMessageWriter } from "./message-writer.ts";
import type { PgColumn } from "./pg-session.ts";
import { TAG } from "./protocol.ts";
import { violation } from "./startup.ts";

export type PgRow = readonly (string | Uint8Array | null)[];

export interface QueryResult {
  /** Null for a command without rows. */
  readonly columns: readonly PgColumn[] | null;
  readonly rows: readonly PgRow[];
  /** Null for an empty query. */
  readonly tag: string | null;
}

interface Statement {
  readonly sql: string;
  /** Made by Describe, for the Execute that follows. */
  result: QueryResult | null;
}

interface Portal {
  readonly statement: Statement;
  result: QueryResult | null;
  /** Rows sent so far. */
  sent: number;
}

/** A client that leaves its statements and portals open does not make us grow. */
const NAMES_MAX = 256;
const TEXT_FORMAT = 0;

export class ExtendedQueries {
  readonly #writer: PgMessageWriter;
  readonly #run: (sql: string) => Promise<QueryResult>;
  readonly #statements = new Map<string, Statement>();
  readonly #portals = new Map<string, Portal>();

  constructor(writer: PgMessageWriter, run: (sql: string) => Promise<QueryResult>) {
    this.#writer = writer;
    this.#run = run;
  }

  /** @throws StrataError, upon which everything up to Sync is to be skipped: what the query threw, not-found, fix-input */
  async message({ tag, body }: PgFrame): Promise<void> {
    const reader = new ByteReader(body, "message of the extended protocol");
    switch (tag) {
      case TAG.parse:
        return this.#parse(reader);
      case TAG.bind:
        return this.#bind(reader);
      case TAG.describe:
        return await this.#describe(reader);
      case TAG.execute:
        return await this.#execute(reader);
      case TAG.close:
        return this.#close(reader);
      default:
        throw violation(`message ${tag} is not of the extended protocol`);
    }
  }

  /** Portals end with their transaction, which Sync ends. */
  sync(): void {
    this.#portals.clear();
  }

  #parse(reader: ByteReader): void {
    const name = reader.cstring();
    const sql = reader.cstring();
    if (name !== "" && this.#statements.has(name)) throw new StrataError("conflict", "duplicate-statement", `prepared statement "${name}" already exists`, { details: { sqlState: "42P05" } });
    remember(this.#statements, name, { sql, result: null });
    this.#writer.empty(TAG.parseComplete);
  }

  #bind(reader: ByteReader): void {
    const name = reader.cstring();
    const statement = this.#statement(reader.cstring());
    reader.skip(2 * reader.u16be());
    const parameters = reader.u16be();
    if (parameters > 0) throw new StrataError("fix-input", "bad-bind", `bind message supplies ${parameters} parameters, but commands here take none`, { details: { sqlState: "08P01" } });
    for (let left = reader.u16be(); left > 0; left--) {
      if (reader.u16be() !== TEXT_FORMAT) throw new StrataError("fix-input", "not-supported", "results in binary format are not supported here: ask for text");
    }
    remember(this.#portals, name, { statement, result: null, sent: 0 });
    this.#writer.empty(TAG.bindComplete);
  }

  async #describe(reader: ByteReader): Promise<void> {
    const kind = reader.u8();
    const name = reader.cstring();
    if (kind === 0x53) {
      const statement = this.#statement(name);
      statement.result ??= await this.#run(statement.sql);
      this.#writer.begin(TAG.parameterDescription).u16(0).finish();
      this.#describeResult(statement.result);
    } else this.#describeResult(await this.#resultOf(this.#portal(name)));
  }

  #describeResult({ columns }: QueryResult): void {
    if (columns === null) this.#writer.empty(TAG.noData);
    else writeRowDescription(this.#writer, columns);
  }

  async #execute(reader: ByteReader): Promise<void> {
    const portal = this.#portal(reader.cstring());
    const most = reader.u32be();
    const { rows, tag } = await this.#resultOf(portal);
    const end = most === 0 ? rows.length : Math.min(rows.length, portal.sent + most);
    for (; portal.sent < end; portal.sent++) writeDataRow(this.#writer, rows[portal.sent]);
    if (end < rows.length) this.#writer.empty(TAG.portalSuspended);
    else if (tag === null) this.#writer.empty(TAG.emptyQuery);
    else writeCommandComplete(this.#writer, tag);
  }

  async #resultOf(portal: Portal): Promise<QueryResult> {
    if (portal.result === null) {
      const { statement } = portal;
      const described = statement.result;
      statement.result = null;
      portal.result = described ?? (await this.#run(statement.sql));
    }
    return portal.result;
  }

  #close(reader: ByteReader): void {
    const kind = reader.u8();
    const name = reader.cstring();
    if (kind === 0x53) this.#statements.delete(name);
    else this.#portals.delete(name);
    this.#writer.empty(TAG.closeComplete);
  }

  #statement(name: string): Statement {
    const statement = this.#statements.get(name);
    if (statement === undefined) throw new StrataError("not-found", "no-such-statement", `prepared statement "${name}" does not exist`, { details: { sqlState: "26000" } });
    return statement;
  }

  #portal(name: string): Portal {
    const portal = this.#portals.get(name);
    if (portal === undefined) throw new StrataError("not-found", "no-such-portal", `portal "${name}" does not exist`, { details: { sqlState: "34000" } });
    return portal;
  }
}

function remember<T>(into: Map<string, T>, name: string, value: T): void {
  if (!into.has(name) && into.size >= NAMES_MAX) throw new StrataError("unavailable", "too-many-statements", `more than ${NAMES_MAX} statements or portals of one session`, { details: { sqlState: "53400" } });
  into.set(name, value);
}
