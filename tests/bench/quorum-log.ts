/**
 * Appends of 256 B that are answered when two of three safekeepers have them on disk, beside puts of 256 B into etcd with
 * three nodes: 1 and 32 clients, each with one outstanding. The safekeepers' clients share one proposer, as the backends of
 * a PostgreSQL do; etcd's use its HTTP gateway over connections that are kept. Interleaved rounds, medians and all runs, after one that
 * does not count; and the processor time of an append by the three nodes and by the clients, which run in this process.
 *
 * Resident memory: after the load, and of a safekeeper that has just started; beside a process of the same runtime that does nothing,
 * below which no safekeeper can be.
 *
 *   bun run bench quorum-log [--seconds 4] [--clients 1,32] [--rounds 3] [--executable dist/strata]
 */
import { existsSync } from "node:fs";
import { loadavg } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { freePort } from "../../src/platform/free-port.ts";
import { logicalMessages, WalGenerator } from "../../src/postgres/wal/generator.ts";
import { cpuTimeMs } from "./support/cpu.ts";
import { answers, Bench, goal, median, mib, residentBytes } from "./support/processes.ts";
import { QuorumDriver } from "./support/quorum-driver.ts";

const { values: args } = parseArgs({ options: { seconds: { type: "string", default: "4" }, clients: { type: "string", default: "1,32" }, rounds: { type: "string", default: "3" }, executable: { type: "string" } } });
const SECONDS = Number(args.seconds);
const SEGMENT = 16 * 1024 * 1024;
const START = SEGMENT + 40;
const VALUE_BYTES = 256;
const ETCD = "/usr/bin/etcd";
const SETTLE_MS = 500;

interface Contestant {
  readonly name: string;
  readonly pids: readonly number[];
  /** One append, durable on a majority. */
  readonly append: () => Promise<void>;
}

async function startOurs(bench: Bench): Promise<Contestant> {
  const safekeepers = await Promise.all([1, 2, 3].map((nodeId) => bench.safekeeper(nodeId)));
  const quorum = await QuorumDriver.connect(safekeepers.map(({ port }) => port), { timelineId: "22".repeat(16), startLsn: START, segmentSizeBytes: SEGMENT });
  const generator = new WalGenerator(logicalMessages(17, { prefix: "b", payloadSizeBytes: VALUE_BYTES }), { version: 17, segmentSize: SEGMENT, startLsn: START, previousLsn: START - 100, systemId: 7n, timelineId: 1 });
  const append = (): Promise<void> => {
    const { endLsn } = generator.next();
    quorum.append(generator.take());
    return quorum.committed(endLsn);
  };
  return { name: "3 safekeepers", pids: safekeepers.map(({ pid }) => pid), append };
}

async function startEtcd(bench: Bench): Promise<Contestant | null> {
  if (!existsSync(ETCD)) {
    console.log(`etcd: skipped, ${ETCD} is not installed`);
    return null;
  }
  const nodes = [1, 2, 3].map((number) => ({ name: `n${number}`, client: `http://127.0.0.1:${freePort()}`, peer: `http://127.0.0.1:${freePort()}` }));
  const cluster = nodes.map(({ name, peer }) => `${name}=${peer}`).join(",");
  const pids = nodes.map(({ name, client, peer }) => bench.spawn([
    ETCD, "--name", name, "--data-dir", join(bench.directory, name), "--listen-client-urls", client, "--advertise-client-urls", client,
    "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster, "--log-level", "error",
  ]).pid);
  for (const { client } of nodes) await answers(`${client}/health`);
  let key = 0;
  const value = Buffer.alloc(VALUE_BYTES, 7).toString("base64");
  const append = async (): Promise<void> => {
    const body = JSON.stringify({ key: Buffer.from(`k${key++}`).toString("base64"), value });
    const reply = await fetch(`${nodes[0].client}/v3/kv/put`, { method: "POST", body });
    if (!reply.ok) throw new Error(`etcd answered ${reply.status}`);
    await reply.arrayBuffer();
  };
  return { name: "etcd, 3 nodes", pids, append };
}

interface Run {
  readonly rate: number;
  readonly medianMs: number;
  /** Microseconds of processor time an append. */
  readonly nodesUs: number;
  readonly clientsUs: number;
}

async function measure(contestant: Contestant, clients: number): Promise<Run> {
  const latencies: number[] = [];
  const [nodesBefore, ownBefore] = [cpuTimeMs(contestant.pids), process.cpuUsage()];
  const start = performance.now();
  await Promise.all(Array.from({ length: clients }, async () => {
    while (performance.now() - start < SECONDS * 1000) {
      const before = performance.now();
      await contestant.append();
      latencies.push(performance.now() - before);
    }
  }));
  const rate = (latencies.length * 1000) / (performance.now() - start);
  const { user, system } = process.cpuUsage(ownBefore);
  const nodesMs = cpuTimeMs(contestant.pids) - nodesBefore;
  return { rate, medianMs: median(latencies), nodesUs: (nodesMs * 1000) / latencies.length, clientsUs: (user + system) / latencies.length };
}

async function compare(contestants: readonly Contestant[], clients: number): Promise<void> {
  const runs = contestants.map((): Run[] => []);
  for (const contestant of contestants) await measure(contestant, clients);
  for (let round = 0; round < Number(args.rounds); round++) for (const [index, contestant] of contestants.entries()) runs[index].push(await measure(contestant, clients));
  const rates = runs.map((all) => median(all.map(({ rate }) => rate)));
  const cpu = runs.map((all) => median(all.map(({ nodesUs }) => nodesUs)));
  const label = `${String(clients).padStart(3)} clients `;
  for (const [index, { name }] of contestants.entries()) {
    const all = runs[index].map(({ rate }) => rate.toFixed(0)).join(" ");
    console.log(`${label} ${name.padEnd(14)} ${rates[index].toFixed(0).padStart(7)}/s (${all}), median ${median(runs[index].map(({ medianMs }) => medianMs)).toFixed(2)} ms; CPU an append: nodes ${cpu[index].toFixed(0)} µs, clients ${median(runs[index].map(({ clientsUs }) => clientsUs)).toFixed(0)} µs`);
  }
  if (rates.length < 2) return;
  const ratio = rates[1] / rates[0];
  console.log(`${label} ratio ${ratio.toFixed(2)}×${clients === 1 ? ` ${goal(ratio, { atLeast: 3 })}` : ""}${clients >= 32 ? ` ${goal(ratio, { atLeast: 10 })}` : ""}, ${(cpu[1] / cpu[0]).toFixed(2)}× the nodes' CPU; load average ${loadavg()[0].toFixed(1)}`);
}

async function main(bench: Bench): Promise<void> {
  const bareBytes = await bareRuntimeBytes(bench);
  const ours = await startOurs(bench);
  await Bun.sleep(SETTLE_MS);
  const idleBytes = median(ours.pids.map(residentBytes));
  const contestants = [await startEtcd(bench), ours].filter((one) => one !== null);
  for (const contestant of contestants) for (let warmUp = 0; warmUp < 200; warmUp++) await contestant.append();
  for (const clients of args.clients.split(",").map(Number)) await compare(contestants, clients);
  const resident = contestants.map(({ pids }) => pids.reduce((sum, pid) => sum + residentBytes(pid), 0));
  const text = contestants.map(({ name }, index) => `${name} ${mib(resident[index])} MiB`).join(", ");
  const floor = `a safekeeper that has just started ${mib(idleBytes)} MiB, the bare runtime ${mib(bareBytes)} MiB`;
  if (resident.length < 2) return console.log(`resident: ${text}; ${floor}`);
  const ratio = resident[1] / resident[0];
  console.log(`resident: ${text}; ${floor}; ratio ${ratio.toFixed(2)}× ${goal(ratio, { atMost: 0.25 })}, of three bare runtimes ${((3 * bareBytes) / resident[0]).toFixed(2)}×`);
}

/** Of a process that does nothing but wait. */
async function bareRuntimeBytes(bench: Bench): Promise<number> {
  const child = bench.spawn([process.execPath, "-e", "setInterval(() => undefined, 1000)"]);
  await Bun.sleep(SETTLE_MS);
  const bytes = residentBytes(child.pid);
  child.kill();
  return bytes;
}

const bench = new Bench("quorum-log", args.executable);
try {
  await main(bench);
} finally {
  await bench.end();
}
process.exit(0);
