/** What a broker does with what it cannot use, over real sockets: the caller is told, it is logged once, and nobody else notices. */
import { afterEach, expect, test } from "bun:test";
import { connect as connectHttp2, type ClientHttp2Session } from "node:http2";
import { connect, type Socket } from "node:net";
import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectBroker } from "../../src/broker/api/client.ts";
import { MESSAGE_TYPE_TIMELINE_INFO } from "../../src/broker/api/messages.ts";
import { encodeFilterRequest } from "../../src/broker/api/requests.ts";
import { BROKER_METHODS } from "../../src/broker/api/service.ts";
import { type RunningBroker, startBroker } from "../../src/broker/broker.ts";
import { BROKER_DEFAULTS, type BrokerConfig } from "../../src/broker/config.ts";
import { generateTokenKeys, signToken } from "../../src/http/auth.ts";
import { Cancelled } from "../../src/kit/errors.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { stoppableRelay } from "./stoppable-relay.ts";
import { timelineInfo } from "./timeline-info.ts";

const stops: (() => unknown)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

const TIMELINE = { tenantId: "a".repeat(32), timelineId: "b".repeat(32) };
const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async function broker(config: Partial<BrokerConfig> = {}): Promise<RunningBroker & { log: RecordingLogger }> {
  const log = new RecordingLogger();
  const running = await startBroker({ ...BROKER_DEFAULTS, listenPort: 0, ...config }, { platform: realPlatform(), log, version: "test" });
  stops.push(() => log.assertQuiet(), () => running.stop());
  return { ...running, log };
}

/** A publication reaches a subscriber: the broker works. */
async function works(port: number, token?: string): Promise<void> {
  const client = connectBroker({ endpoint: `http://127.0.0.1:${port}`, ...(token === undefined ? {} : { token }) });
  const enough = new AbortController();
  const subscribed = client.subscribe({ types: [MESSAGE_TYPE_TIMELINE_INFO], timeline: TIMELINE }, () => enough.abort(), AbortSignal.any([enough.signal, AbortSignal.timeout(10_000)])).catch((error: unknown) => {
    if (!(error instanceof Cancelled)) throw error;
  });
  for (let left = 500; left > 0 && !enough.signal.aborted; left--) {
    await client.publishOne({ type: "timeline-info", info: timelineInfo(TIMELINE) });
    await Bun.sleep(10);
  }
  await subscribed;
  client.close();
  expect(enough.signal.aborted).toBe(true);
}

async function open(port: number, bytes: string | Uint8Array): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  stops.push(() => socket.destroy());
  socket.on("error", () => undefined);
  await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
  socket.write(bytes);
  return socket;
}

const closed = (socket: Socket, limitMs: number): Promise<boolean> => {
  socket.resume();
  return Promise.race([new Promise<boolean>((resolve) => socket.once("close", () => resolve(true))), Bun.sleep(limitMs).then(() => socket.destroyed)]);
};

function caller(port: number): Client {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  stops.push(() => client.close());
  return client;
}

/** The status with which a method answers these bytes. */
function answerTo(port: number, method: keyof typeof BROKER_METHODS, request: { readonly bytes: Uint8Array; readonly metadata?: Metadata }): Promise<ServiceError | null> {
  const { bytes, metadata = new Metadata() } = request;
  const client = caller(port);
  const { path, requestStream, responseStream } = BROKER_METHODS[method];
  const raw = (value: Uint8Array): Buffer => Buffer.from(value);
  return new Promise((resolve) => {
    if (responseStream) {
      const call = client.makeServerStreamRequest(path, raw, raw, bytes, metadata);
      call.on("data", () => undefined);
      call.on("error", (error) => resolve(error as ServiceError));
      call.on("end", () => resolve(null));
    } else if (requestStream) {
      const call = client.makeClientStreamRequest(path, raw, raw, metadata, (error) => resolve(error));
      call.write(bytes);
    } else client.makeUnaryRequest(path, raw, raw, bytes, metadata, (error) => resolve(error));
  });
}

test("garbage instead of a preface, behind it, and frames that break the protocol end their connection alone", async () => {
  const { port } = await broker();
  const settings = Buffer.from("000000040000000000", "hex");
  const bad: readonly Uint8Array[] = [
    Buffer.alloc(4096, 0xfe),
    Buffer.from(`PRI * HTTP/3.0\r\n\r\nXX\r\n\r\n`),
    Buffer.concat([Buffer.from(PREFACE), Buffer.alloc(4096, 0xfe)]),
    // A frame longer than may be.
    Buffer.concat([Buffer.from(PREFACE), settings, Buffer.from("ffffff000000000001", "hex"), Buffer.alloc(1000)]),
  ];
  for (const [index, bytes] of bad.entries()) expect([index, await closed(await open(port, bytes), 5_000)]).toEqual([index, true]);
  await works(port);
}, 40_000);

test("messages that are none, in every method, are told to be invalid", async () => {
  const { port } = await broker();
  const garbage = Buffer.alloc(64, 0xff);
  for (const method of ["publishOne", "publishSafekeeperInfo", "subscribeSafekeeperInfo", "subscribeByFilter"] as const) {
    expect([method, (await answerTo(port, method, { bytes: garbage }))?.code]).toEqual([method, status.INVALID_ARGUMENT]);
  }
  const shortId = Buffer.from("120a120812020101", "hex");
  expect((await answerTo(port, "publishSafekeeperInfo", { bytes: shortId }))?.code).toBe(status.INVALID_ARGUMENT);
  await works(port);
});

test("an oversize message is refused, not taken in", async () => {
  const { port } = await broker();
  expect((await answerTo(port, "publishOne", { bytes: new Uint8Array(2 << 20) }))?.code).toBe(status.RESOURCE_EXHAUSTED);
  expect((await answerTo(port, "publishSafekeeperInfo", { bytes: new Uint8Array(2 << 20) }))?.code).toBe(status.RESOURCE_EXHAUSTED);
  await works(port);
});

test("tokens: none, expired, another's, another scope: refused in every method, said once each, and never repeated", async () => {
  const directory = mkdtempSync(join(tmpdir(), "strata-broker-bad-"));
  stops.push(() => rmSync(directory, { recursive: true }));
  const keys = generateTokenKeys();
  writeFileSync(join(directory, "key.pem"), keys.publicKeyPem);
  const { port, log } = await broker({ authPublicKeyPath: join(directory, "key.pem") });
  const expired = signToken({ scope: "safekeeperdata" }, keys.privateKeyPem, { expiresAtSeconds: 1 });
  const foreign = signToken({ scope: "safekeeperdata" }, generateTokenKeys().privateKeyPem);
  const narrow = signToken({ scope: "tenant", tenantId: TIMELINE.tenantId }, keys.privateKeyPem);
  for (const [token, code] of [[null, status.UNAUTHENTICATED], [expired, status.PERMISSION_DENIED], [foreign, status.PERMISSION_DENIED], [narrow, status.PERMISSION_DENIED]] as const) {
    for (const method of ["publishOne", "publishSafekeeperInfo", "subscribeSafekeeperInfo", "subscribeByFilter"] as const) {
      const metadata = new Metadata();
      if (token !== null) metadata.set("authorization", `Bearer ${token}`);
      const before = log.entries.length;
      expect([method, (await answerTo(port, method, { bytes: encodeFilterRequest({ types: [], timeline: null }), metadata }))?.code]).toEqual([method, code]);
      const said = log.entries.slice(before);
      expect(said.map(({ message, fields }) => [message, fields.method])).toEqual([["call refused", method]]);
      if (token !== null) expect(JSON.stringify(said.map(({ fields }) => [fields, String(fields.error)]))).not.toContain(token);
    }
  }
  await works(port, signToken({ scope: "safekeeperdata" }, keys.privateKeyPem));
}, 20_000);

test("a peer that goes silent is pinged, and dropped with all that was kept for it", async () => {
  const { port, log } = await broker({ http2KeepaliveIntervalMs: 100, http2KeepaliveTimeoutMs: 200 });
  const silent = await open(port, Buffer.concat([Buffer.from(PREFACE), Buffer.from("000000040000000000", "hex")]));
  // A subscriber whose machine stops: nothing comes through any more, in either direction.
  const wire = await stoppableRelay(port);
  stops.push(() => wire.close());
  let session: ClientHttp2Session | null = null;
  const heard = new Promise<void>((resolve, reject) => {
    session = connectHttp2(`http://127.0.0.1:${wire.port}`);
    session.on("error", () => undefined);
    const stream = session.request({ ":method": "POST", ":path": BROKER_METHODS.subscribeByFilter.path, "content-type": "application/grpc", te: "trailers" });
    stream.on("error", () => undefined);
    stream.on("response", () => resolve());
    const filter = encodeFilterRequest({ types: [MESSAGE_TYPE_TIMELINE_INFO], timeline: TIMELINE });
    const frame = Buffer.alloc(5 + filter.length);
    frame.writeUInt32BE(filter.length, 1);
    frame.set(filter, 5);
    stream.end(frame);
    setTimeout(() => reject(new Error("no subscription")), 5_000).unref();
  });
  await heard;
  const subscribers = async (): Promise<number> => Number(/storage_broker_per_timeline_active_subscribers (\d+)/.exec(await (await fetch(`http://127.0.0.1:${port}/metrics`)).text())?.[1]);
  expect(await subscribers()).toBe(1);
  wire.stop();
  for (let left = 200; left > 0 && (await subscribers()) > 0; left--) await Bun.sleep(20);
  expect(await subscribers()).toBe(0);
  expect(log.entries.filter(({ message }) => message === "subscription ended").length).toBe(1);
  expect(await closed(silent, 2_000)).toBe(true);
  (session as ClientHttp2Session | null)?.destroy();
  await works(port);
}, 20_000);

test("a connection that says nothing, and one that says too little, are dropped", async () => {
  const { port } = await broker({ prefaceTimeoutMs: 100 });
  for (const bytes of ["", "P"]) expect(await closed(await open(port, bytes), 3_000)).toBe(true);
  await works(port);
});
