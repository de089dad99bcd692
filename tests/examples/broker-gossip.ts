/**
 * The broker's client module in use: publishes, subscribes by filter, discovers. Runs under Bun, and under Node from 22.18 on as it is
 * (from 20 on after `bun build --target node`):
 *
 *   bun tests/examples/broker-gossip.ts http://127.0.0.1:50051
 *   node tests/examples/broker-gossip.ts https://broker.example:50051 --ca ca.crt --token-file broker.jwt
 *
 * It plays a safekeeper with one timeline and a pageserver that looks for it, says what each hears, and ends. Exit status 1 when
 * something was not heard within ten seconds or the broker refused.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { connectBroker, type BrokerClient } from "../../src/broker/api/client.ts";
import { type BrokerMessage, MESSAGE_TYPE_DISCOVERY_REQUEST, MESSAGE_TYPE_DISCOVERY_RESPONSE, MESSAGE_TYPE_TIMELINE_INFO, type SafekeeperTimelineInfo } from "../../src/broker/api/messages.ts";
import { Cancelled } from "../../src/kit/errors.ts";

const { values: args, positionals } = parseArgs({ options: { ca: { type: "string" }, "token-file": { type: "string" } }, allowPositionals: true });
const [endpoint = "http://127.0.0.1:50051"] = positionals;
const read = (path: string | undefined): string | undefined => (path === undefined ? undefined : readFileSync(path, "utf8").trim());

const randomId = (): string => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const timeline = { tenantId: randomId(), timelineId: randomId() };
const info: SafekeeperTimelineInfo = {
  ...timeline, safekeeperId: 1, term: 1, lastLogTerm: 1, flushLsn: 0x2000, commitLsn: 0x1000, backupLsn: 0, remoteConsistentLsn: 0,
  peerHorizonLsn: 0, localStartLsn: 0x1000, standbyHorizon: 0, safekeeperConnstr: "sk-1.example:5454", httpConnstr: "sk-1.example:7676",
};

/** Calls `hear` with what matches, until the signal aborts. A stream that breaks is an error: a program that stays would subscribe again. */
async function listen(client: BrokerClient, options: { types: readonly (2 | 3 | 4)[]; hear: (message: BrokerMessage) => void; signal: AbortSignal }): Promise<void> {
  try {
    await client.subscribe({ types: options.types, timeline }, options.hear, options.signal);
  } catch (error) {
    if (!(error instanceof Cancelled)) throw error;
  }
}

/** Publishes its state over and over, as the broker keeps nothing, and answers who asks for the timeline. */
async function safekeeper(client: BrokerClient, signal: AbortSignal): Promise<void> {
  const publisher = client.publisher();
  const pulse = setInterval(() => publisher.publish(info), 100);
  const hear = (message: BrokerMessage): void => {
    if (message.type !== "discovery-request") return;
    const { safekeeperId, commitLsn, safekeeperConnstr, standbyHorizon } = info;
    client.publishOne({ type: "discovery-response", response: { ...timeline, safekeeperId, commitLsn, safekeeperConnstr, standbyHorizon } }).catch((error: unknown) => console.error(error));
  };
  await Promise.race([listen(client, { types: [MESSAGE_TYPE_DISCOVERY_REQUEST], hear, signal }), publisher.ended]).finally(() => clearInterval(pulse));
  publisher.end();
  await publisher.ended;
}

/** Asks until somebody has answered and told its state. */
async function pageserver(client: BrokerClient, stop: AbortController): Promise<void> {
  const heard = new Set<string>();
  const hear = (message: BrokerMessage): void => {
    if (heard.has(message.type)) return;
    heard.add(message.type);
    if (message.type === "timeline-info") console.log(`info: safekeeper ${message.info.safekeeperId} has committed up to ${message.info.commitLsn.toString(16)}`);
    if (message.type === "discovery-response") console.log(`discovered: ${message.response.safekeeperConnstr}`);
    if (heard.size === 2) stop.abort();
  };
  const ask = (): void => void client.publishOne({ type: "discovery-request", request: timeline }).catch((error: unknown) => console.error(error));
  const asking = setInterval(ask, 100);
  await listen(client, { types: [MESSAGE_TYPE_TIMELINE_INFO, MESSAGE_TYPE_DISCOVERY_RESPONSE], hear, signal: stop.signal }).finally(() => clearInterval(asking));
  if (heard.size < 2) throw new Error(`heard only: ${[...heard].join(", ") || "nothing"}`);
}

const stop = new AbortController();
const late = setTimeout(() => stop.abort(), 10_000);
const connect = (): BrokerClient => connectBroker({ endpoint, caPem: read(args.ca), token: read(args["token-file"]) });
const clients = [connect(), connect()];
try {
  await Promise.all([safekeeper(clients[0], stop.signal), pageserver(clients[1], stop)]);
  console.log("done");
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  stop.abort();
  clearTimeout(late);
  for (const client of clients) client.close();
}
