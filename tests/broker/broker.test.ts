import { afterEach, expect, test } from "bun:test";
import { connect, createServer, type Socket } from "node:net";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, credentials, loadPackageDefinition } from "@grpc/grpc-js";
import { load } from "@grpc/proto-loader";
import { connectBroker } from "../../src/broker/api/client.ts";
import { type BrokerMessage, MESSAGE_TYPE_DISCOVERY_REQUEST, MESSAGE_TYPE_TIMELINE_INFO } from "../../src/broker/api/messages.ts";
import { encodeFilterRequest } from "../../src/broker/api/requests.ts";
import { BROKER_METHODS } from "../../src/broker/api/service.ts";
import { type RunningBroker, startBroker } from "../../src/broker/broker.ts";
import { BROKER_DEFAULTS, type BrokerConfig } from "../../src/broker/config.ts";
import { generateTokenKeys, signToken } from "../../src/http/auth.ts";
import { Cancelled, isStrataError } from "../../src/kit/errors.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { timelineInfo } from "./timeline-info.ts";

const stops: (() => unknown)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

async function broker(config: Partial<BrokerConfig> = {}): Promise<RunningBroker & { log: RecordingLogger }> {
  const log = new RecordingLogger();
  const running = await startBroker({ ...BROKER_DEFAULTS, listenPort: 0, ...config }, { platform: realPlatform(), log, version: "test" });
  stops.push(() => log.assertQuiet(), () => running.stop());
  return { ...running, log };
}

function client(port: number, token?: string) {
  const one = connectBroker({ endpoint: `http://127.0.0.1:${port}`, token });
  stops.push(() => one.close());
  return one;
}

/** Subscribes, and calls `provoke` again and again until `count` messages have come. */
async function collect(port: number, options: { count: number; provoke: () => void | Promise<void>; timeline?: string; types?: (2 | 3 | 4)[] }): Promise<BrokerMessage[]> {
  const abort = new AbortController();
  const seen: BrokerMessage[] = [];
  const timeline = options.timeline === undefined ? null : { tenantId: "a".repeat(32), timelineId: options.timeline };
  const ended = client(port).subscribe({ types: options.types ?? [MESSAGE_TYPE_TIMELINE_INFO], timeline }, (message) => {
    seen.push(message);
    if (seen.length >= options.count) abort.abort();
  }, abort.signal);
  const done = ended.catch((error: unknown) => {
    if (!(error instanceof Cancelled)) throw error;
  });
  for (let round = 0; round < 200 && !abort.signal.aborted; round++) {
    await options.provoke();
    await Bun.sleep(10);
  }
  abort.abort();
  await done;
  return seen;
}

test("published infos arrive at subscribers of the timeline, by stream and one by one", async () => {
  const { port } = await broker();
  const publisher = client(port).publisher();
  const info = timelineInfo({ commitLsn: 0x5000, timelineId: "c".repeat(32) });
  const viaStream = await collect(port, { count: 1, timeline: "c".repeat(32), provoke: () => {
    publisher.publish(timelineInfo({ timelineId: "d".repeat(32) }));
    publisher.publish(info);
  } });
  expect(viaStream[0]).toEqual({ type: "timeline-info", info });
  publisher.end();
  await publisher.ended;
  const request = { tenantId: "a".repeat(32), timelineId: "e".repeat(32) };
  const viaOne = await collect(port, { count: 1, types: [MESSAGE_TYPE_DISCOVERY_REQUEST], provoke: () => client(port).publishOne({ type: "discovery-request", request }) });
  expect(viaOne[0]).toEqual({ type: "discovery-request", request });
});

test("a client generated from the published proto file understands us and we it", async () => {
  const { port } = await broker();
  const definition = await load(join(import.meta.dir, "../../proto/broker.proto"), { keepCase: true, longs: String });
  const loaded = loadPackageDefinition(definition) as unknown as { storage_broker: { BrokerService: new (...args: unknown[]) => GeneratedClient } };
  const generated = new loaded.storage_broker.BrokerService(`127.0.0.1:${port}`, credentials.createInsecure());
  stops.push(() => generated.close());
  const call = generated.SubscribeSafekeeperInfo({ all: {} });
  call.on("error", () => undefined);
  const received = new Promise<Record<string, unknown>>((resolve) => call.on("data", resolve));
  const info = timelineInfo({ commitLsn: 0x1_0000_0001, availabilityZone: "z1" });
  const publisher = client(port).publisher();
  const pulse = setInterval(() => publisher.publish(info), 20);
  const seen = await received;
  clearInterval(pulse);
  call.cancel();
  publisher.end();
  expect(seen.commit_lsn).toBe("4294967297");
  expect(seen.availability_zone).toBe("z1");
  expect(Buffer.from((seen.tenant_timeline_id as { tenant_id: Uint8Array }).tenant_id).toString("hex")).toBe(info.tenantId);

  const theirs = await collect(port, { count: 1, provoke: () => new Promise<void>((resolve, reject) => {
    const typed = { type: 2, safekeeper_timeline_info: { safekeeper_id: 9, tenant_timeline_id: { tenant_id: Buffer.alloc(16, 1), timeline_id: Buffer.alloc(16, 2) }, commit_lsn: "123" } };
    generated.PublishOne(typed, (error) => (error === null ? resolve() : reject(error)));
  }) });
  expect(theirs[0]?.type === "timeline-info" && theirs[0].info.safekeeperId).toBe(9);
  expect(theirs[0]?.type === "timeline-info" && theirs[0].info.commitLsn).toBe(123);
});

/** A TCP relay that can stop taking what the server sends, as a stuck peer does. */
async function stoppableRelay(port: number): Promise<{ port: number; stopReading(): void }> {
  const upstreams: Socket[] = [];
  const server = createServer((socket) => {
    const upstream = connect(port, "127.0.0.1");
    for (const one of [socket, upstream]) one.on("error", () => undefined);
    socket.on("close", () => upstream.destroy());
    upstream.on("close", () => socket.destroy());
    socket.pipe(upstream);
    upstream.pipe(socket);
    upstreams.push(upstream);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  stops.push(() => {
    for (const upstream of upstreams) upstream.destroy();
    server.close();
  });
  return {
    port: (server.address() as { port: number }).port,
    stopReading: () => upstreams.forEach((upstream) => upstream.unpipe().pause()),
  };
}

interface GeneratedClient {
  SubscribeSafekeeperInfo(request: unknown): { on(event: string, listener: (value: Record<string, unknown>) => void): void; cancel(): void };
  PublishOne(request: unknown, done: (error: Error | null) => void): void;
  close(): void;
}

test("status and metrics answer on the gRPC port", async () => {
  const { port } = await broker();
  expect((await fetch(`http://127.0.0.1:${port}/status`)).status).toBe(200);
  const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  expect(metrics).toContain("storage_broker_processed_messages_total 0");
  expect((await fetch(`http://127.0.0.1:${port}/nothing`)).status).toBe(404);
});

test("a message that is not one is refused, and the broker goes on", async () => {
  const { port } = await broker();
  const bad = timelineInfo({ tenantId: "aa" });
  const error = await client(port).publishOne({ type: "timeline-info", info: bad }).catch((e: unknown) => e);
  expect(isStrataError(error) && error.kind).toBe("fix-input");
  const garbage = connect(port, "127.0.0.1");
  garbage.on("error", () => undefined);
  garbage.end(Buffer.alloc(4096, 0xfe));
  await new Promise((resolve) => garbage.on("close", resolve));
  expect((await fetch(`http://127.0.0.1:${port}/status`)).status).toBe(200);
});

test("a subscriber that never reads loses messages, not the broker its memory, nor others their messages", async () => {
  const running = await broker({ timelineQueueLength: 8 });
  running.log.expectWarn("subscriber does not keep up");
  const wire = await stoppableRelay(running.port);
  const raw = new Client(`127.0.0.1:${wire.port}`, credentials.createInsecure());
  stops.push(() => raw.close());
  const { path, requestSerialize, responseDeserialize } = BROKER_METHODS.subscribeByFilter;
  const deaf = raw.makeServerStreamRequest(path, requestSerialize, responseDeserialize, encodeFilterRequest({ types: [MESSAGE_TYPE_TIMELINE_INFO], timeline: { tenantId: "a".repeat(32), timelineId: "b".repeat(32) } }));
  deaf.on("error", () => undefined);
  const subscribed = new Promise((resolve) => deaf.once("data", resolve));
  const publisher = client(running.port).publisher();
  const large = timelineInfo({ safekeeperConnstr: "x".repeat(8192) });
  const pulse = setInterval(() => publisher.publish(large), 10);
  await subscribed;
  clearInterval(pulse);
  wire.stopReading();
  const metric = async (): Promise<number> => Number(/storage_broker_broadcast_dropped_messages_total (\d+)/.exec(await (await fetch(`http://127.0.0.1:${running.port}/metrics`)).text())?.[1]);
  for (let round = 0; round < 400 && (await metric()) === 0; round++) {
    for (let n = 0; n < 100; n++) publisher.publish(large);
    await Bun.sleep(5);
  }
  expect(await metric()).toBeGreaterThan(0);
  const others = await collect(running.port, { count: 3, timeline: "b".repeat(32), provoke: () => void publisher.publish(timelineInfo()) });
  expect(others.length).toBeGreaterThanOrEqual(3);
  deaf.cancel();
  publisher.end();
});

test("with a key, only bearers of a fitting scope get in", async () => {
  const directory = await mkdtemp(join(tmpdir(), "strata-broker-"));
  stops.push(() => rm(directory, { recursive: true }));
  const keys = generateTokenKeys();
  await writeFile(join(directory, "key.pem"), keys.publicKeyPem);
  const { port } = await broker({ authPublicKeyPath: join(directory, "key.pem") });
  const message: BrokerMessage = { type: "timeline-info", info: timelineInfo() };
  const kind = async (token?: string): Promise<string> => {
    const error = await client(port, token).publishOne(message).then(() => null, (e: unknown) => e);
    return error === null ? "accepted" : isStrataError(error) ? error.kind : String(error);
  };
  expect(await kind()).toBe("unauthenticated");
  expect(await kind("nonsense")).toBe("forbidden");
  expect(await kind(signToken({ scope: "tenant", tenantId: "a".repeat(32) }, keys.privateKeyPem))).toBe("forbidden");
  expect(await kind(signToken({ scope: "safekeeperdata" }, keys.privateKeyPem, { expiresAtSeconds: 1 }))).toBe("forbidden");
  expect(await kind(signToken({ scope: "safekeeperdata" }, generateTokenKeys().privateKeyPem))).toBe("forbidden");
  expect(await kind(signToken({ scope: "safekeeperdata" }, keys.privateKeyPem))).toBe("accepted");
});

test("a port in use is a typed error", async () => {
  const { port } = await broker();
  const error = await startBroker({ ...BROKER_DEFAULTS, listenPort: port }, { platform: realPlatform(), log: new RecordingLogger(), version: "test" }).catch((e: unknown) => e);
  expect(isStrataError(error, "port-in-use")).toBe(true);
});
