import { afterEach, expect, test } from "bun:test";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { connectBroker } from "../../src/broker/api/client.ts";
import { encodeMessage, MESSAGE_TYPE_TIMELINE_INFO } from "../../src/broker/api/messages.ts";
import { BROKER_METHODS } from "../../src/broker/api/service.ts";
import { startBroker } from "../../src/broker/broker.ts";
import { BROKER_DEFAULTS } from "../../src/broker/config.ts";
import { frameMessage, messageOf } from "../../src/broker/registry/frame.ts";
import { openDelivery, rawStreamOf, type SubscribeCall } from "../../src/broker/server/delivery.ts";
import { Cancelled } from "../../src/kit/errors.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { timelineInfo } from "./timeline-info.ts";

const stops: (() => unknown)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

const TIMELINE = { tenantId: "a".repeat(32), timelineId: "b".repeat(32) };

/** The terms of the infos heard, until `last` has come or 10 s have passed. */
function hear(port: number, last: number): { readonly terms: number[]; readonly done: Promise<void> } {
  const client = connectBroker({ endpoint: `http://127.0.0.1:${port}` });
  const terms: number[] = [];
  const enough = new AbortController();
  const ended = client.subscribe({ types: [MESSAGE_TYPE_TIMELINE_INFO], timeline: TIMELINE }, (message) => {
    if (message.type !== "timeline-info") return;
    terms.push(message.info.term);
    if (message.info.term === last) enough.abort();
  }, AbortSignal.any([enough.signal, AbortSignal.timeout(10_000)]));
  const done = ended.catch((error: unknown) => {
    if (!(error instanceof Cancelled)) throw error;
  }).finally(() => client.close());
  return { terms, done };
}

test("the library keeps the HTTP/2 stream where it is looked for", async () => {
  const server = new Server();
  stops.push(() => server.forceShutdown());
  const found = Promise.withResolvers<boolean>();
  const send = (call: SubscribeCall): void => {
    found.resolve(rawStreamOf(call) !== null);
    const delivery = openDelivery(call, () => undefined);
    const frames = [1, 2, 3].map((term) => frameMessage(encodeMessage({ type: "timeline-info", info: timelineInfo({ ...TIMELINE, term }) })));
    expect(delivery.send(() => frames.shift() ?? null)).toEqual({ count: 3, room: true });
  };
  server.addService(BROKER_METHODS, { subscribeByFilter: send });
  const port = await new Promise<number>((resolve, reject) => server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) => (error === null ? resolve(bound) : reject(error))));
  const { terms, done } = hear(port, 3);
  expect(await found.promise).toBe(true);
  await done;
  expect(terms).toEqual([1, 2, 3]);
});

test("where it does not, messages go through the library one by one", () => {
  const written: Uint8Array[] = [];
  const drains: (() => void)[] = [];
  const call = { on: (_event: string, listener: () => void) => drains.push(listener), write: (bytes: Uint8Array) => written.push(bytes) < 2 };
  let room = 0;
  const delivery = openDelivery(call as unknown as SubscribeCall, () => room++);
  const frames = [1, 2, 3].map((byte) => frameMessage(Uint8Array.of(byte)));
  const next = (): Uint8Array | null => frames.shift() ?? null;
  expect(delivery.send(next)).toEqual({ count: 2, room: false });
  expect(frames.length).toBe(1);
  for (const drain of drains) drain();
  expect(room).toBe(1);
  delivery.send(next);
  expect(written).toEqual([Uint8Array.of(1), Uint8Array.of(2), Uint8Array.of(3)]);
});

test("a frame holds its message", () => {
  const frame = frameMessage(Uint8Array.from({ length: 300 }, (_, at) => at));
  expect([...frame.subarray(0, 5)]).toEqual([0, 0, 0, 1, 44]);
  expect(messageOf(frame).length).toBe(300);
  expect(frameMessage(new Uint8Array(0))).toEqual(new Uint8Array(5));
});

test("a burst larger than its queue reaches a subscriber who reads, whole and in order", async () => {
  const log = new RecordingLogger();
  const broker = await startBroker({ ...BROKER_DEFAULTS, listenPort: 0, timelineQueueLength: 8 }, { platform: realPlatform(), log, version: "test" });
  stops.push(() => log.assertQuiet(), () => broker.stop());
  const { terms, done } = hear(broker.port, 60);
  const sender = connectBroker({ endpoint: `http://127.0.0.1:${broker.port}` });
  stops.push(() => sender.close());
  const publisher = sender.publisher();
  publisher.ended.catch(() => undefined);
  for (let pulses = 0; pulses < 500 && terms.length === 0; pulses++) {
    publisher.publish(timelineInfo({ ...TIMELINE, term: 0 }));
    await Bun.sleep(20);
  }
  for (let term = 1; term <= 60; ) {
    if (publisher.publish(timelineInfo({ ...TIMELINE, term }))) term++;
    else await Bun.sleep(1);
  }
  await done;
  publisher.end();
  expect(terms.filter((term) => term > 0)).toEqual(Array.from({ length: 60 }, (_, at) => at + 1));
});
