/**
 * Fan-out: one publisher, many subscribers, every message to all of them; deliveries a second through the broker, beside
 * Redis PUBLISH/SUBSCRIBE with payloads of the same size. Publisher and subscribers are in this process in both cases; the
 * publisher is at most a window ahead of the slowest subscriber, so that neither has to drop anything.
 *
 *   bun run bench broker [--subscribers 1,20,100] [--seconds 3] [--executable dist/strata]
 */
import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import { connectBroker } from "../../src/broker/api/client.ts";
import { encodeTimelineInfo, MESSAGE_TYPE_TIMELINE_INFO, type SafekeeperTimelineInfo } from "../../src/broker/api/messages.ts";
import { freePort } from "../../src/platform/free-port.ts";
import { answers, Bench } from "./support/processes.ts";

const { values: args } = parseArgs({ options: { subscribers: { type: "string", default: "1,20,100" }, seconds: { type: "string", default: "3" }, executable: { type: "string" } } });
const SECONDS = Number(args.seconds);
const REDIS = "/usr/bin/redis-server";
const WINDOW = 200;

const INFO: SafekeeperTimelineInfo = {
  safekeeperId: 1, tenantId: "11".repeat(16), timelineId: "22".repeat(16), term: 5, lastLogTerm: 5, flushLsn: 0x1_2345_6780, commitLsn: 0x1_2345_6780, backupLsn: 0x1_2000_0000,
  remoteConsistentLsn: 0x1_2300_0000, peerHorizonLsn: 0x1_2345_0000, localStartLsn: 0x100_0000, standbyHorizon: 0, safekeeperConnstr: "127.0.0.1:5454", httpConnstr: "127.0.0.1:7676",
};

/** Opens subscriptions, each counting into its place; `publish` sends one message to all, false when it should be tried again. */
interface Channel {
  readonly name: string;
  open(counts: number[]): Promise<{ publish(): boolean; close(): Promise<void> }>;
}

function broker(port: number): Channel {
  const endpoint = `http://127.0.0.1:${port}`;
  return {
    name: "broker",
    async open(counts) {
      const stop = new AbortController();
      const clients = counts.map(() => connectBroker({ endpoint }));
      clients.forEach((client, index) => void client.subscribe({ types: [MESSAGE_TYPE_TIMELINE_INFO], timeline: null }, () => void counts[index]++, stop.signal).catch(() => undefined));
      const sender = connectBroker({ endpoint });
      const publisher = sender.publisher();
      publisher.ended.catch(() => undefined);
      return {
        publish: () => publisher.publish(INFO),
        close: async () => {
          publisher.end();
          stop.abort();
          for (const client of [...clients, sender]) client.close();
        },
      };
    },
  };
}

function redis(port: number): Channel {
  const payload = Buffer.from(encodeTimelineInfo(INFO)).toString("latin1").replace(/[^ -~]/g, "x");
  return {
    name: "redis",
    async open(counts) {
      const clients = counts.map(() => new Bun.RedisClient(`redis://127.0.0.1:${port}`));
      await Promise.all(clients.map((client, index) => client.subscribe("t", () => void counts[index]++)));
      const sender = new Bun.RedisClient(`redis://127.0.0.1:${port}`);
      return {
        publish: () => {
          // Those under way when it ends are refused.
          sender.publish("t", payload).catch(() => undefined);
          return true;
        },
        close: async () => {
          for (const client of [...clients, sender]) client.close();
        },
      };
    },
  };
}

/** Deliveries a second. */
async function measure(channel: Channel, subscribers: number): Promise<number> {
  const counts = Array.from({ length: subscribers }, () => 0);
  const { publish, close } = await channel.open(counts);
  let published = 0;
  // All subscriptions stand when all have heard something.
  for (let tries = 0; counts.includes(0) && tries < 200; tries++) {
    publish();
    await Bun.sleep(20);
  }
  await Bun.sleep(100);
  if (counts.includes(0)) throw new Error(`${channel.name}: a subscriber hears nothing`);
  counts.fill(0);
  const start = performance.now();
  while (performance.now() - start < SECONDS * 1000) {
    const ahead = published - Math.min(...counts);
    let sent = 0;
    while (ahead + sent < WINDOW && publish()) sent++;
    published += sent;
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  const seconds = (performance.now() - start) / 1000;
  const delivered = counts.reduce((sum, count) => sum + count, 0);
  await close();
  return delivered / seconds;
}

async function main(bench: Bench): Promise<void> {
  const [brokerPort, redisPort] = [freePort(), freePort()];
  bench.role(["--role", "broker", "--listen-addr", `127.0.0.1:${brokerPort}`]);
  await answers(`http://127.0.0.1:${brokerPort}/status`);
  const channels = [broker(brokerPort)];
  if (existsSync(REDIS)) {
    bench.spawn([REDIS, "--port", String(redisPort), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", bench.directory]);
    channels.unshift(redis(redisPort));
    await Bun.sleep(500);
  } else console.log(`redis: skipped, ${REDIS} is not installed`);
  console.log(`payload ${encodeTimelineInfo(INFO).length} bytes`);
  for (const subscribers of args.subscribers.split(",").map(Number)) {
    const rates: number[] = [];
    for (const channel of channels) rates.push(await measure(channel, subscribers));
    const text = channels.map(({ name }, index) => `${name} ${rates[index].toFixed(0)} deliveries/s`).join(", ");
    console.log(`${String(subscribers).padStart(4)} subscribers: ${text}${rates.length === 2 ? `, ratio ${(rates[1] / rates[0]).toFixed(2)}×` : ""}`);
  }
}

const bench = new Bench("broker", args.executable);
try {
  await main(bench);
} finally {
  await bench.end();
}
process.exit(0);
