/** Our client against stock PostgreSQL servers; stock clients against our server. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { utf8, utf8ToString } from "../../src/kit/bytes.ts";
import type { StrataError } from "../../src/kit/errors.ts";
import { lsnToString, parseLsn } from "../../src/kit/lsn.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { freePort } from "../../src/platform/free-port.ts";
import { findPostgresBinaries, initdb, resolvePostgresUser } from "../../src/platform/postgres-binaries.ts";
import { type PostgresProcess, startPostgres } from "../../src/platform/postgres-process.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { PgClient } from "../../src/wire/client.ts";
import { decodeSenderMessage, encodeStandbyStatus } from "../../src/wire/replication-messages.ts";
import { servePg } from "../../src/wire/serve.ts";
import type { PgErrorFields } from "../../src/wire/sqlstate.ts";
import { EchoHandler } from "./support.ts";

const platform = realPlatform();
const HBA = `local all all trust
host all md5user 127.0.0.1/32 md5
host all scram 127.0.0.1/32 scram-sha-256
host all plain 127.0.0.1/32 password
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
`;
let directory = "";
let server: PostgresProcess;
const notices: PgErrorFields[] = [];

function connect(parameters: Record<string, string>, password?: string): Promise<PgClient> {
  return PgClient.connect(platform.network, {
    address: { host: "127.0.0.1", port: server.port }, parameters: { database: "postgres", ...parameters }, ...platform, onNotice: (notice) => notices.push(notice),
    ...(password === undefined ? {} : { password }),
  });
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "strata-wire-"));
  await chmod(directory, 0o777);
  const binaries = await findPostgresBinaries({ major: 17 });
  const user = await resolvePostgresUser();
  const dataDirectory = join(directory, "pgdata");
  await initdb({ binaries, user, dataDirectory, superuser: "postgres" });
  await writeFile(join(dataDirectory, "pg_hba.conf"), HBA);
  server = await startPostgres({ binaries, user, dataDirectory, listenAddresses: "127.0.0.1", port: freePort(), socketDirectory: directory, settings: { fsync: "off" } });
  const admin = await connect({ user: "postgres" });
  await admin.query("set password_encryption = md5; create role md5user login password 'pw ü'");
  await admin.query("set password_encryption = 'scram-sha-256'; create role scram login password 'geheim'; create role plain login password 'x'");
  await admin.close();
}, 30_000);

afterAll(async () => {
  await server.stop("immediate");
  await rm(directory, { recursive: true, force: true });
}, 30_000);

describe("our client on PostgreSQL 17", () => {
  test("queries, errors, notices, over TCP and the Unix socket", async () => {
    const client = await connect({ user: "postgres" });
    expect((await client.query("select 1 as a, null as b, 'ü' as c")).rows).toEqual([["1", null, "ü"]]);
    expect((await client.query("select 1; create temporary table t (id int)")).tag).toBe("CREATE TABLE");
    const error = await client.query("select 1/0").catch((caught: StrataError) => caught);
    expect(error).toMatchObject({ kind: "fix-input", details: { sqlState: "22012", severity: "ERROR" } });
    await client.query("do $$ begin raise warning 'look'; end $$");
    expect(notices.at(-1)).toMatchObject({ severity: "WARNING", message: "look" });
    expect(client.parameterStatus.get("server_version")).toStartWith("17.");
    await client.close();
    const local = await PgClient.connect(platform.network, { address: { unixPath: `${directory}/.s.PGSQL.${server.port}` }, parameters: { user: "postgres" }, ...platform });
    expect((await local.query("select inet_server_addr()")).rows).toEqual([[null]]);
    await local.close();
  });

  test.each([["md5user", "pw ü"], ["scram", "geheim"], ["plain", "x"]])("password of %s, right and wrong", async (user, password) => {
    const client = await connect({ user }, password);
    expect((await client.query("select current_user")).rows).toEqual([[user]]);
    await client.close();
    expect(await connect({ user }, "wrong").catch((caught: StrataError) => caught)).toMatchObject({ kind: "unauthenticated", details: { sqlState: "28P01", severity: "FATAL" } });
  });

  test("COPY OUT and IN", async () => {
    const client = await connect({ user: "postgres" });
    await client.query("create temporary table c (id int, v text)");
    const input = await client.copyIn("copy c from stdin");
    for (let id = 0; id < 1000; id++) input.write(utf8(`${id}\t${"v".repeat(id % 50)}\n`));
    expect(await input.finish()).toBe("COPY 1000");
    const output = await client.copyOut("copy c to stdout");
    let text = "";
    for (let data = await output.read(); data !== null; data = await output.read()) text += utf8ToString(data);
    expect(await output.finish()).toBe("COPY 1000");
    expect(text.split("\n").length).toBe(1001);
    const bad = await client.copyIn("copy c from stdin");
    bad.write(utf8("not a number\n"));
    expect(await bad.finish().catch((caught: StrataError) => caught)).toMatchObject({ details: { sqlState: "22P02" } });
    expect((await client.query("select count(*) from c")).rows).toEqual([["1000"]]);
    await client.close();
  });

  test("physical replication", async () => {
    const client = await connect({ user: "postgres", replication: "true" });
    const { columns, rows } = await client.query("IDENTIFY_SYSTEM");
    const start = parseLsn(rows[0][columns.findIndex(({ name }) => name === "xlogpos")] ?? "");
    const segment = start - (start % 16_777_216);
    const stream = await client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(segment)}`);
    let at = segment;
    while (at < start) {
      const payload = await stream.read();
      if (payload === null) throw new Error("the stream ended");
      const message = decodeSenderMessage(payload);
      if (message.kind === "keepalive") continue;
      expect(message.startLsn).toBe(at);
      at += message.data.length;
    }
    stream.write(encodeStandbyStatus({ writeLsn: at, flushLsn: at, applyLsn: at, timestamp: 0n, replyRequested: false }));
    expect(await stream.finish()).toContain("START_REPLICATION");
    expect((await client.query("IDENTIFY_SYSTEM")).rows.length).toBe(1);
    await client.close();
  });
});

async function ourServer(body: (port: number) => Promise<void>, tls?: { certPem: string; keyPem: string }): Promise<void> {
  const log = new RecordingLogger();
  const served: Promise<void>[] = [];
  const listener = await platform.network.listen({ host: "127.0.0.1", port: 0 }, (connection) => {
    served.push(servePg(connection, new EchoHandler(), { auth: null, log, platform, ...(tls === undefined ? {} : { tls }) }));
  });
  try {
    await body(listener.port);
  } finally {
    await listener.close();
    await Promise.all(served);
  }
  log.assertQuiet();
}

describe("stock clients on our server", () => {
  test("the postgres npm package", async () => {
    await ourServer(async (port) => {
      const seen: string[] = [];
      const sql = postgres({ host: "127.0.0.1", port, user: "u", database: "d", max: 1, fetch_types: false, onnotice: (notice) => seen.push(notice.message ?? "") });
      expect(JSON.parse(JSON.stringify(await sql.unsafe("rows").simple()))).toEqual([{ a: "x", b: 1 }, { a: null, b: 2 }, { a: "ü", b: 3 }]);
      expect(seen).toEqual(["have some rows"]);
      const error = await sql.unsafe("fail").simple().then(() => null, (caught: { code: string; message: string }) => caught);
      expect(error).toMatchObject({ code: "42704", message: "timeline is missing: the cause" });
      await sql.end();
    });
  });

  test.skipIf(!existsSync("/usr/bin/psql"))("psql, plain and over TLS", async () => {
    const key = join(directory, "key.pem");
    const cert = join(directory, "cert.pem");
    const made = Bun.spawnSync(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=localhost", "-days", "2"], { stderr: "pipe" });
    expect(made.exitCode).toBe(0);
    const tls = { certPem: await Bun.file(cert).text(), keyPem: await Bun.file(key).text() };
    await ourServer(async (port) => {
      for (const mode of ["disable", "require"]) {
        const child = Bun.spawn(["psql", `host=127.0.0.1 port=${port} user=u dbname=d sslmode=${mode}`, "-XAt", "-c", "rows"], { stdout: "pipe", stderr: "pipe" });
        const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
        expect([code, out]).toEqual([0, "x|1\n|2\nü|3\n"]);
        expect(err).toContain("NOTICE:  have some rows");
      }
    }, tls);
  });
});
