import { afterEach, describe, expect, test } from "bun:test";
import { concatBytes, utf8, utf8ToString } from "../../src/kit/bytes.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { PgClient, type PgClientOptions } from "../../src/wire/client.ts";
import type { PgErrorFields } from "../../src/wire/sqlstate.ts";
import { type ServePgOptions, servePg } from "../../src/wire/serve.ts";
import { StrataError } from "../../src/kit/errors.ts";
import { MemoryNetwork, memoryPair } from "./memory-network.ts";
import { EchoHandler, testClock, testRandom } from "./support.ts";

const log = new RecordingLogger();
afterEach(() => log.assertQuiet());

async function rig(options: Partial<ServePgOptions> = {}, client: Partial<PgClientOptions> & { pieceBytes?: number } = {}) {
  const network = new MemoryNetwork();
  if (client.pieceBytes !== undefined) network.pieceBytes = client.pieceBytes;
  const handler = new EchoHandler();
  const served: Promise<void>[] = [];
  const platform = { clock: testClock, random: testRandom, network };
  await network.listen({ host: "", port: 0 }, (connection) => served.push(servePg(connection, handler, { auth: null, log, platform, ...options })));
  const notices: PgErrorFields[] = [];
  const connect = (): Promise<PgClient> =>
    PgClient.connect(network, { address: { host: "", port: 1 }, parameters: { user: "u" }, clock: testClock, random: testRandom, onNotice: (n) => notices.push(n), ...client });
  return { network, handler, served, notices, connect };
}

/** Sends raw bytes to a server and gives all it answers. */
async function raw(bytes: Uint8Array, options: Partial<ServePgOptions> = {}): Promise<Uint8Array> {
  const [client, server] = memoryPair();
  const platform = { clock: testClock, random: testRandom, network: new MemoryNetwork() };
  const served = servePg(server, new EchoHandler(), { auth: null, log, platform, ...options });
  client.write(bytes);
  const parts: Uint8Array[] = [];
  for (let chunk = await client.read(); chunk !== null; chunk = await client.read()) parts.push(chunk);
  client.end();
  await served;
  return concatBytes(parts);
}

function startupPacket(code: number, rest: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(8 + rest.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length);
  view.setUint32(4, code);
  bytes.set(rest, 8);
  return bytes;
}
const USER = utf8("user\0u\0\0");

describe.each([Number.POSITIVE_INFINITY, 1, 7])("server and client, stream cut into %d bytes", (pieceBytes) => {
  test("rows, NULL, UTF-8, notices", async () => {
    const { connect, notices } = await rig({}, { pieceBytes });
    const client = await connect();
    const result = await client.query("rows");
    expect(result.rows).toEqual([["x", "1"], [null, "2"], ["ü", "3"]]);
    expect(result.columns).toEqual([{ name: "a", typeOid: 25 }, { name: "b", typeOid: 23 }]);
    expect(result.tag).toBe("SELECT 3");
    expect(notices.map((notice) => notice.message)).toEqual(["have some rows"]);
    expect(client.parameterStatus.get("integer_datetimes")).toBe("on");
    await client.close();
  });

  test("errors carry SQLSTATE and the cause chain, and the session goes on", async () => {
    const { connect } = await rig({}, { pieceBytes });
    const client = await connect();
    const error = await client.query("fail").catch((caught: StrataError) => caught);
    expect(error).toMatchObject({ kind: "not-found", code: "server-error", message: "timeline is missing: the cause", details: { sqlState: "42704", severity: "ERROR" } });
    expect(await client.query("bug").catch((caught: StrataError) => caught)).toMatchObject({ details: { sqlState: "XX000" } });
    expect((await client.query("rows")).rows.length).toBe(3);
    expect((await client.query("  ")).tag).toBe("");
    expect(await client.copyOut("fail").catch((caught: StrataError) => caught)).toMatchObject({ kind: "not-found" });
    await client.close();
  });

  test("COPY BOTH", async () => {
    const { connect } = await rig({}, { pieceBytes });
    const client = await connect();
    const copy = await client.copyBoth("echo");
    for (let at = 0; at < 300; at++) copy.write(utf8(String(at)), utf8("!"));
    for (let at = 0; at < 300; at++) expect(utf8ToString((await copy.read()) ?? new Uint8Array(0))).toBe(`<${at}!>`);
    copy.done();
    expect(await copy.read()).toBeNull();
    expect(await copy.finish()).toBe("COPY 0");
    expect((await client.query("rows")).rows.length).toBe(3);
    await client.close();
  });
});

describe("COPY OUT and IN", () => {
  test("out: all of it, and an error in the middle is an error", async () => {
    const { connect } = await rig();
    const client = await connect();
    const copy = await client.copyOut("send 100");
    let count = 0;
    for (let data = await copy.read(); data !== null; data = await copy.read()) expect(data[0]).toBe(count++);
    expect(count).toBe(100);
    expect(await copy.finish()).toBe("COPY");
    const broken = await client.copyOut("halfway");
    expect(utf8ToString((await broken.read()) ?? new Uint8Array(0))).toBe("some");
    expect(await broken.read().catch((caught: StrataError) => caught)).toMatchObject({ kind: "corrupt", details: { sqlState: "XX001" } });
    await expect(broken.finish()).rejects.toThrow("the layer is broken");
    expect((await client.query("rows")).rows.length).toBe(3);
    await client.close();
  });

  test("in: counts bytes; CopyFail gives the client's reason", async () => {
    const { connect } = await rig();
    const client = await connect();
    const copy = await client.copyIn("count");
    copy.write(new Uint8Array(200_000));
    copy.write(new Uint8Array(5));
    expect(await copy.finish()).toBe("COPY 200005");
    const failing = await client.copyIn("count");
    failing.fail("changed my mind");
    expect(await failing.finish().catch((caught: StrataError) => caught)).toMatchObject({ details: { sqlState: "57014" } });
    expect((await client.query("rows")).rows.length).toBe(3);
    await client.close();
  });
});

describe("authentication", () => {
  const auth = {
    async authenticate({ password }: { password: string }): Promise<void> {
      if (password !== "secret") throw new StrataError("unauthenticated", "bad-token", "the token is not valid");
    },
  };
  test("right, wrong and missing password", async () => {
    const right = await rig({ auth }, { password: "secret" });
    const client = await right.connect();
    expect(right.handler.sessions[0].password).toBe("secret");
    await client.close();
    const wrong = await rig({ auth }, { password: "x" });
    expect(await wrong.connect().catch((caught: StrataError) => caught)).toMatchObject({ kind: "unauthenticated", details: { sqlState: "28P01", severity: "FATAL" } });
    expect(wrong.handler.sessions.length).toBe(0);
    const missing = await rig({ auth });
    expect(await missing.connect().catch((caught: StrataError) => caught)).toMatchObject({ code: "password-needed" });
  });
  test("the handler may refuse", async () => {
    const { connect, handler, served } = await rig({}, { parameters: { user: "u", database: "forbidden" } });
    expect(await connect().catch((caught: StrataError) => caught)).toMatchObject({ kind: "forbidden", details: { severity: "FATAL" } });
    await Promise.all(served);
    expect(handler.disconnects).toBe(1);
  });
});

describe("handshake", () => {
  test("SSL and GSS requests are declined, then plain start-up works", async () => {
    const bytes = concatBytes([startupPacket(80877104), startupPacket(80877103), startupPacket(196608, USER), utf8("X"), Uint8Array.of(0, 0, 0, 4)]);
    const answer = await raw(bytes);
    expect(utf8ToString(answer.subarray(0, 3))).toBe("NNR");
  });
  test("a third encryption request is refused", async () => {
    expect(utf8ToString(await raw(concatBytes([1, 2, 3].map(() => startupPacket(80877103)))))).toContain("too many encryption requests");
  });
  test("newer minor versions and unknown options are negotiated down", async () => {
    const answer = await raw(concatBytes([startupPacket((3 << 16) + 2, utf8("_pq_.x\0on\0user\0u\0\0")), utf8("X"), Uint8Array.of(0, 0, 0, 4)]));
    expect(answer[0]).toBe(0x76);
    expect(utf8ToString(answer.subarray(0, 30))).toContain("_pq_.x");
  });
  test("cancel requests and early departures are met with silence", async () => {
    expect((await raw(startupPacket(80877102, new Uint8Array(8)))).length).toBe(0);
  });
  test.each([
    ["HTTP", utf8("GET / HTTP/1.1\r\n\r\n"), "invalid length"],
    ["protocol 2", startupPacket(2 << 16, USER), "unsupported frontend protocol 2.0"],
    ["no terminator", startupPacket(196608, utf8("user")), "start-up packet: string"],
    ["rest after the terminator", startupPacket(196608, utf8("user\0u\0\0\0")), "after the terminator"],
    ["too short", Uint8Array.of(0, 0, 0, 4), "start-up packet"],
    ["too long", Uint8Array.of(0, 1, 0, 0), "invalid length"],
    ["garbage after", concatBytes([startupPacket(196608, USER), utf8("\x01GARBAGE")]), "invalid"],
    ["oversize query", concatBytes([startupPacket(196608, USER), utf8("Q"), Uint8Array.of(0x7f, 0xff, 0xff, 0xff)]), "invalid length"],
    ["query without NUL", concatBytes([startupPacket(196608, USER), utf8("Q"), Uint8Array.of(0, 0, 0, 5, 65)]), "NUL-terminated"],
  ])("%s: one FATAL ErrorResponse, then closed", async (_name, bytes, expected) => {
    const text = utf8ToString(await raw(bytes));
    expect(text).toContain("FATAL");
    expect(text).toContain(expected);
  });
  test("a client that says nothing is dropped", async () => {
    const [client, server] = memoryPair();
    const platform = { clock: testClock, random: testRandom, network: new MemoryNetwork() };
    const served = servePg(server, new EchoHandler(), { auth: null, log, platform, startupTimeoutMs: 20 });
    expect(utf8ToString((await client.read()) ?? new Uint8Array(0))).toContain("no handshake within 20 ms");
    await served;
  });
  test("after an error the extended protocol's messages are skipped up to Sync", async () => {
    const parse = concatBytes([utf8("P"), Uint8Array.of(0, 0, 0, 4), utf8("B"), Uint8Array.of(0, 0, 0, 4), utf8("S"), Uint8Array.of(0, 0, 0, 4)]);
    const text = utf8ToString(await raw(concatBytes([startupPacket(196608, USER), parse, utf8("X"), Uint8Array.of(0, 0, 0, 4)])));
    expect(text.split("message of the extended protocol").length).toBe(2);
    expect(text.split("Z\0\0\0\x05I").length).toBe(3);
  });
});

describe("stopping", () => {
  test("idle and busy sessions are told and end", async () => {
    const stop = new AbortController();
    const { connect, served, handler } = await rig({ signal: stop.signal });
    const [idle, busy] = [await connect(), await connect()];
    const waiting = busy.query("wait").catch((caught: StrataError) => caught);
    await testClock.sleep(5);
    stop.abort();
    expect(await waiting).toMatchObject({ details: { sqlState: "57P01", severity: "FATAL" } });
    expect(await idle.query("rows").catch((caught: StrataError) => caught)).toMatchObject({ details: { sqlState: "57P01" } });
    await Promise.all(served);
    expect(handler.disconnects).toBe(2);
  });

  test("a vanished client aborts the session's signal", async () => {
    const { connect, served, handler } = await rig();
    const client = await connect();
    const waiting = client.query("wait").catch(() => null);
    await testClock.sleep(5);
    client.destroy();
    await Promise.all(served);
    await waiting;
    expect(handler.sessions[0].signal.aborted).toBe(true);
  });
});

describe("batching", () => {
  test("a burst of answers leaves in few writes", async () => {
    const [client, server] = memoryPair();
    const platform = { clock: testClock, random: testRandom, network: new MemoryNetwork() };
    const served = servePg(server, new EchoHandler(), { auth: null, log, platform });
    const message = concatBytes([utf8("d"), Uint8Array.of(0, 0, 0, 5, 65)]);
    client.write(concatBytes([startupPacket(196608, USER), utf8("Q"), Uint8Array.of(0, 0, 0, 9), utf8("echo\0")]));
    await testClock.sleep(5);
    const before = server.written.length;
    client.write(concatBytes(Array.from({ length: 1000 }, () => message)));
    await testClock.sleep(5);
    expect(server.written.length - before).toBeLessThan(5);
    client.end();
    await served;
  });
});
