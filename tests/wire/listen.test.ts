/** A libpq port with a stock driver: extended queries, cancel requests, TLS. */
import { afterEach, expect, test } from "bun:test";
import postgres from "postgres";
import type { StrataError } from "../../src/kit/errors.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import type { Listener } from "../../src/platform/network.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { PgClient } from "../../src/wire/client.ts";
import { type ListenPgOptions, listenPg } from "../../src/wire/listen.ts";
import { EchoHandler } from "./support.ts";

const platform = realPlatform();
const log = new RecordingLogger();
const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  log.assertQuiet();
});

async function listen(options: Partial<ListenPgOptions> = {}): Promise<{ listener: Listener; handler: EchoHandler }> {
  const handler = new EchoHandler();
  const listener = await listenPg({ address: { host: "127.0.0.1", port: 0 }, platform, log, auth: null, tls: null, session: () => ({ handler }), ...options });
  cleanups.push(() => listener.close());
  return { listener, handler };
}

function driver(port: number): postgres.Sql {
  const sql = postgres({ host: "127.0.0.1", port, user: "u", database: "d", max: 1, fetch_types: false, onnotice: () => {} });
  cleanups.push(() => sql.end({ timeout: 1 }));
  return sql;
}

async function connect(port: number): Promise<PgClient> {
  const client = await PgClient.connect(platform.network, { address: { host: "127.0.0.1", port }, parameters: { user: "u" }, ...platform });
  cleanups.push(() => client.close());
  return client;
}

test("a driver that prepares everything gets rows, columns, errors, and goes on", async () => {
  const { listener, handler } = await listen();
  const sql = driver(listener.port);
  for (let round = 0; round < 3; round++) {
    const rows = await sql`rows`;
    expect(rows.map((row) => ({ ...row }))).toEqual([{ a: "x", b: 1 }, { a: null, b: 2 }, { a: "ü", b: 3 }]);
    expect(rows.columns.map(({ name, type }) => [name, type])).toEqual([["a", 25], ["b", 23]]);
    const error = await sql`fail`.catch((caught: postgres.PostgresError) => caught);
    expect(error).toMatchObject({ code: "42704", message: "timeline is missing: the cause" });
    expect(await sql`echo`.catch((caught: postgres.PostgresError) => caught)).toMatchObject({ code: "0A000" });
    expect(await sql`rows ${7}`.catch((caught: postgres.PostgresError) => caught)).toMatchObject({ code: "08P01", message: expect.stringContaining("1 parameters") });
  }
  expect(handler.sessions.length).toBe(1);
  expect((await sql.unsafe("rows")).count).toBe(3);
}, 20_000);

test("a query runs once however often its result is described", async () => {
  let runs = 0;
  const handler = new EchoHandler();
  const { listener } = await listen({ session: () => ({ handler: { connected: (s) => handler.connected(s), disconnected: () => {}, query: async (session, text) => (runs++, handler.query(session, text)) } }) });
  await driver(listener.port)`rows`;
  expect(runs).toBe(1);
}, 20_000);

test("a cancel request ends the query that runs, with PostgreSQL's words, and nothing else", async () => {
  const { listener, handler } = await listen();
  const sql = driver(listener.port);
  const other = await connect(listener.port);
  const othersWait = other.query("wait").catch((error: StrataError) => error);
  for (let round = 0; round < 3; round++) {
    const query = sql.unsafe(round === 1 ? "hang" : "wait");
    const failed = query.catch((error: postgres.PostgresError) => error);
    await Bun.sleep(50);
    query.cancel();
    expect(await failed).toMatchObject({ code: "57014", message: "canceling statement due to user request" });
    expect((await sql.unsafe("rows")).count).toBe(3);
  }
  expect(handler.sessions.length).toBe(2);
  expect(await Promise.race([othersWait, Bun.sleep(50).then(() => "still waiting")])).toBe("still waiting");
  other.destroy();
  await othersWait;
}, 20_000);

test("a cancelled COPY ends; what the client still sends of it is ignored, and its next query is answered", async () => {
  const { listener, handler } = await listen();
  const client = await connect(listener.port);
  const copy = await client.copyBoth("echo");
  copy.write(new Uint8Array([65]));
  expect(await copy.read()).toEqual(new Uint8Array([60, 65, 62]));
  const reading = copy.read().catch((error: StrataError) => error);
  await cancel(listener.port, client);
  copy.write(new Uint8Array([66]));
  expect(await reading).toMatchObject({ details: { sqlState: "57014" } });
  await copy.finish().catch(() => undefined);
  expect((await client.query("rows")).rows.length).toBe(3);
  expect(handler.disconnects).toBe(0);
}, 20_000);

test("a wrong key, and one of a session that does nothing, cancel nothing", async () => {
  const { listener } = await listen();
  const client = await connect(listener.port);
  const key = client.backendKey ?? { processId: 0, secret: 0 };
  await cancel(listener.port, client);
  const waiting = client.query("wait").catch((error: StrataError) => error);
  await Bun.sleep(30);
  await PgClient.cancel(platform.network, { host: "127.0.0.1", port: listener.port }, { ...key, secret: key.secret ^ 1 });
  expect(await Promise.race([waiting, Bun.sleep(100).then(() => "still waiting")])).toBe("still waiting");
  await cancel(listener.port, client);
  expect(await waiting).toMatchObject({ details: { sqlState: "57014" } });
}, 20_000);

async function cancel(port: number, client: PgClient): Promise<void> {
  if (client.backendKey === null) throw new Error("the server gave no key");
  await PgClient.cancel(platform.network, { host: "127.0.0.1", port }, client.backendKey);
}
