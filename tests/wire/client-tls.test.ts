/** The client's side of TLS: what it believes, and whom it leaves without a word. */
import { afterEach, expect, test } from "bun:test";
import { utf8 } from "../../src/kit/bytes.ts";
import { describeError, StrataError } from "../../src/kit/errors.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { type PgTls, pgTls } from "../../src/wire/client-tls.ts";
import { PgClient } from "../../src/wire/client.ts";
import { listenPg } from "../../src/wire/listen.ts";
import { newCertificate, selfSignedCertificate } from "../support/certificate.ts";
import { EchoHandler } from "./support.ts";

const platform = realPlatform();
const log = new RecordingLogger();
const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function server(options: { readonly host?: string; readonly plain?: true } = {}): Promise<number> {
  const listener = await listenPg({ address: { host: options.host ?? "127.0.0.1", port: 0 }, platform, log, auth: null, tls: options.plain ? null : selfSignedCertificate, session: () => ({ handler: new EchoHandler() }) });
  cleanups.push(() => listener.close());
  return listener.port;
}

async function connect(port: number, tls: PgTls | undefined, host = "127.0.0.1"): Promise<PgClient> {
  const client = await PgClient.connect(platform.network, { address: { host, port }, parameters: { user: "u" }, tls, timeoutMs: 5000, ...platform });
  cleanups.push(() => client.destroy());
  return client;
}

/** "connected", or the error's code with its cause. */
async function outcome(port: number, tls: PgTls | undefined, host?: string): Promise<string> {
  return await connect(port, tls, host).then(() => "connected", (error: unknown) => `${error instanceof StrataError ? error.code : "?"}: ${describeError(error)}`);
}

const verified = (): PgTls => ({ verify: true, caPem: selfSignedCertificate().certPem });

test("queries and long copies go through TLS both ways", async () => {
  const port = await server();
  const client = await connect(port, verified());
  expect((await client.query("rows")).rows.length).toBe(3);
  const out = await client.copyOut("send 500");
  let received = 0;
  for (let data = await out.read(); data !== null; data = await out.read()) received += data.length;
  await out.finish();
  expect(received).toBe(500 * 8192);
  const copy = await client.copyIn("count");
  for (let sent = 0; sent < 500; sent++) {
    copy.write(new Uint8Array(8192));
    await copy.drained();
  }
  expect(await copy.finish()).toBe(`COPY ${500 * 8192}`);
  await client.close();
}, 20_000);

test("only a certificate of the trusted authority in the server's name is believed, unless nothing is to be checked", async () => {
  const port = await server();
  const stranger = newCertificate().certPem;
  expect(await outcome(port, verified())).toBe("connected");
  expect(await outcome(port, verified(), "localhost")).toBe("connected");
  expect(await outcome(port, { verify: true, caPem: stranger })).toMatch(/^tls-handshake-failed: .*certificate/);
  expect(await outcome(port, { verify: true })).toMatch(/^tls-handshake-failed: .*certificate/);
  expect(await outcome(port, pgTls("require", stranger))).toBe("connected");
  expect(await outcome(port, pgTls("verify-full", stranger))).toMatch(/^tls-handshake-failed/);
  const elsewhere = await server({ host: "127.0.0.2" });
  expect(await outcome(elsewhere, verified(), "127.0.0.2")).toMatch(/^tls-handshake-failed: .*127\.0\.0\.2/);
  expect(pgTls("disable", stranger)).toBeUndefined();
}, 20_000);

test("a server without TLS is told nothing, not even a password", async () => {
  const port = await server({ plain: true });
  expect(await outcome(port, { verify: false })).toMatch(/^tls-refused/);
  expect(await outcome(port, undefined)).toBe("connected");
});

/** A server that answers the request for TLS with these bytes; the bytes it got afterwards. */
async function answering(bytes: string): Promise<{ readonly port: number; readonly heard: () => number }> {
  let heard = 0;
  const listener = await platform.network.listen({ host: "127.0.0.1", port: 0 }, (connection) => {
    void (async () => {
      await connection.read();
      if (bytes === "") return connection.destroy();
      connection.write(utf8(bytes));
      for (let more = await connection.read(); more !== null; more = await connection.read()) heard += more.length;
    })().catch(() => undefined);
  });
  cleanups.push(() => listener.close());
  return { port: listener.port, heard: () => heard };
}

test("words put in ahead of the handshake, none at all, and nonsense instead of one are typed errors", async () => {
  const injected = await answering("SZ");
  expect(await outcome(injected.port, verified())).toMatch(/^data-before-tls/);
  expect(injected.heard()).toBe(0);
  expect(await outcome((await answering("")).port, verified())).toMatch(/^connection-lost/);
  expect(await outcome((await answering("E")).port, verified())).toMatch(/^tls-refused/);
});

test("a server that agrees and then says nothing is left after the time allowed, one that was asked to stop at once", async () => {
  const { port } = await answering("S");
  const started = performance.now();
  const attempt = (options: { timeoutMs: number; signal?: AbortSignal }) => PgClient.connect(platform.network, { address: { host: "127.0.0.1", port }, parameters: { user: "u" }, tls: verified(), ...options, ...platform }).then(() => "connected", (error: StrataError) => error.code);
  expect(await attempt({ timeoutMs: 300 })).toBe("connect-timeout");
  expect(await attempt({ timeoutMs: 60_000, signal: AbortSignal.timeout(200) })).not.toBe("connected");
  expect(performance.now() - started).toBeLessThan(5000);
}, 20_000);
