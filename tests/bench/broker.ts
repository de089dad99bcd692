/**
 * Fan-out: one publisher, many subscribers, every message to all of them; deliveries a second through the broker, beside
 * Redis PUBLISH/SUBSCRIBE with payloads of the same size. Publisher and subscribers are in this process in both cases; the
 * publisher is at most a window ahead of the slowest subscriber, so that neither has to drop anything.
 *
 * The subscribers of the broker are gRPC clients in TypeScript, those of Redis the runtime's own in native code, and on few cores
 * they bound the rate. So the processor time a delivery costs each server is said as well: that is what fan-out itself costs.
 * Interleaved rounds, medians and all runs.
 *
 * Beside them the ceilings: servers that know their message from the start and only send it (support/grpc-flood.ts), heard by the same
 * clients. The library's is what a broker costs that writes through it; the batched one is what is left when nothing but bytes is.
 *
 *   bun run bench broker [--subscribers 1,20,100] [--seconds 3] [--rounds 3] [--executable dist/strata]
 */
import { existsSync } from "node:fs";
import { loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { connectBroker } from "../../src/broker/api/client.ts";
import { encodeTimelineInfo, MESSAGE_TYPE_TIMELINE_INFO } from "../../src/broker/api/messages.ts";
import { freePort } from "../../src/platform/free-port.ts";
import { cpuTimeMs } from "./support/cpu.ts";
import { FLOOD_INFO } from "./support/flood-info.ts";
import { answers, Bench, goal, median } from "./support/processes.ts";

const { values: args } = parseArgs({ options: { subscribers: { type: "string", default: "1,20,100" }, seconds: { type: "string", default: "3" }, rounds: { type: "string", default: "3" }, executable: { type: "string" } } });
const SECONDS = Number(args.seconds);
const REDIS = "/usr/bin/redis-server";
const WINDOW = 200;

/** Opens subscriptions, each counting into its place; `publish` sends one message to all, false when it should be tried again. */
interface Channel {
  readonly name: string;
  /** Of the server. */
  readonly pid: number;
  open(counts: number[]): Promise<{ publish(): boolean; close(): Promise<void> }>;
}

function broker(port: number, pid: number): Channel {
  const endpoint = `http://127.0.0.1:${port}`;
  return {
    name: "broker",
    pid,
    async open(counts) {
      const stop = new AbortController();
      const clients = counts.map(() => connectBroker({ endpoint }));
      clients.forEach((client, index) => void client.subscribe({ types: [MESSAGE_TYPE_TIMELINE_INFO], timeline: null }, () => void counts[index]++, stop.signal).catch(() => undefined));
      const sender = connectBroker({ endpoint });
      const publisher = sender.publisher();
      publisher.ended.catch(() => undefined);
      return {
        publish: () => publisher.publish(FLOOD_INFO),
        close: async () => {
          publisher.end();
          stop.abort();
          for (const client of [...clients, sender]) client.close();
        },
      };
    },
  };
}

function redis(port: number, pid: number): Channel {
  const payload = Buffer.from(encodeTimelineInfo(FLOOD_INFO)).toString("latin1").replace(/[^ -~]/g, "x");
  return {
    name: "redis",
    pid,
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

interface Run {
  readonly rate: number;
  /** Of the server, a delivery. */
  readonly cpuUs: number;
}

async function measure(channel: Channel, subscribers: number): Promise<Run> {
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
  const cpuBefore = cpuTimeMs([channel.pid]);
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
  const cpuUs = ((cpuTimeMs([channel.pid]) - cpuBefore) * 1000) / delivered;
  await close();
  return { rate: delivered / seconds, cpuUs };
}

/** A subscriber's cost to a server that has nothing else to do, as the same clients hear it. */
async function ceiling(bench: Bench, kind: string, subscribers: number): Promise<Run> {
  const server = Bun.spawn([process.execPath, join(import.meta.dir, "support/grpc-flood.ts"), kind, String(subscribers)], { stdout: "pipe", stderr: "inherit" });
  bench.onEnd(async () => server.kill("SIGKILL"));
  const port = Number(new TextDecoder().decode((await server.stdout.getReader().read()).value));
  const counts = Array.from({ length: subscribers }, () => 0);
  const { close } = await broker(port, server.pid).open(counts);
  // Not all of them: under a flood the clients' process reads some of its connections far more often than others.
  for (let tries = 0; counts.every((count) => count === 0) && tries < 500; tries++) await Bun.sleep(20);
  await Bun.sleep(100);
  counts.fill(0);
  const cpuBefore = cpuTimeMs([server.pid]);
  const start = performance.now();
  await Bun.sleep(SECONDS * 1000);
  const seconds = (performance.now() - start) / 1000;
  const delivered = counts.reduce((sum, count) => sum + count, 0);
  const cpuUs = ((cpuTimeMs([server.pid]) - cpuBefore) * 1000) / delivered;
  await close();
  server.kill("SIGKILL");
  await server.exited;
  return { rate: delivered / seconds, cpuUs };
}

async function main(bench: Bench): Promise<void> {
  const [brokerPort, redisPort] = [freePort(), freePort()];
  const { pid } = bench.role(["--role", "broker", "--listen-addr", `127.0.0.1:${brokerPort}`]);
  await answers(`http://127.0.0.1:${brokerPort}/status`);
  const channels = [broker(brokerPort, pid)];
  if (existsSync(REDIS)) {
    const server = bench.spawn([REDIS, "--port", String(redisPort), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", bench.directory]);
    channels.unshift(redis(redisPort, server.pid));
    await Bun.sleep(500);
  } else console.log(`redis: skipped, ${REDIS} is not installed`);
  console.log(`payload ${encodeTimelineInfo(FLOOD_INFO).length} bytes`);
  for (const subscribers of args.subscribers.split(",").map(Number)) {
    const runs = channels.map((): Run[] => []);
    for (let round = 0; round < Number(args.rounds); round++) for (const [index, channel] of channels.entries()) runs[index].push(await measure(channel, subscribers));
    const rates = runs.map((all) => median(all.map((run) => run.rate)));
    const cpu = runs.map((all) => median(all.map((run) => run.cpuUs)));
    const text = channels.map(({ name }, index) => `${name} ${rates[index].toFixed(0)} deliveries/s (${runs[index].map((run) => run.rate.toFixed(0)).join(" ")}), server ${cpu[index].toFixed(2)} µs of CPU each`).join(", ");
    const ratio = channels.length === 2 ? `, ratio ${(rates[1] / rates[0]).toFixed(2)}× ${goal(rates[1] / rates[0], { atLeast: 1 })}, of the servers' CPU ${(cpu[1] / cpu[0]).toFixed(2)}×` : "";
    console.log(`${String(subscribers).padStart(4)} subscribers: ${text}${ratio}; load average ${loadavg()[0].toFixed(1)}`);
    const ceilings: string[] = [];
    for (const kind of ["grpc-js", "http2", "http2-batched"]) {
      const run = await ceiling(bench, kind, subscribers);
      ceilings.push(`${kind} ${run.rate.toFixed(0)} deliveries/s, server ${run.cpuUs.toFixed(2)} µs of CPU each`);
    }
    console.log(`     ceilings of servers that only send: ${ceilings.join("; ")}`);
  }
}

const bench = new Bench("broker", args.executable);
try {
  await main(bench);
} finally {
  await bench.end();
}
process.exit(0);
