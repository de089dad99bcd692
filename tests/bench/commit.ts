/**
 * Quorum commit: pgbench -N on a stock PostgreSQL 15 whose commits wait for two of three safekeepers, beside the same
 * server waiting for two of three `pg_receivewal --synchronous`. Interleaved rounds on the same machine; medians and all runs,
 * and the processor time of a transaction by the processes that spend it. Two ceilings beside them: the same load on our PostgreSQL
 * whose commits wait for our proposer's WAL stream alone, which answers at once, so that safekeepers cost nothing; and on the
 * opponent's where nobody waits for anything (synchronous_commit off). Before each count of clients everyone runs once without
 * being counted. Without pgbench there is nothing to run; without pg_receivewal, no opponent.
 *
 *   bun run bench commit [--rounds 5] [--seconds 5] [--clients 1,8,32] [--scale 10] [--executable dist/strata]
 */
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { activityOf, cpuTimeMs } from "./support/cpu.ts";
import { type CommitServer, connection, findTool, runTool, startAnswered, startOurs, startReceivers } from "./support/postgres-quorum.ts";
import { Bench, goal, median } from "./support/processes.ts";

const { values: args } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" }, seconds: { type: "string", default: "5" }, clients: { type: "string", default: "1,8,32" },
    scale: { type: "string", default: "10" }, executable: { type: "string" },
  },
});

interface Contestant extends CommitServer {
  readonly environment?: Readonly<Record<string, string>>;
}

interface Run {
  readonly tps: number;
  readonly latencyMs: number;
  /** Microseconds of processor time a transaction. */
  readonly cpuUs: Readonly<Record<string, number>>;
  /** Of one of the writers, a transaction. */
  readonly writes: number;
  readonly sleeps: number;
}

async function pgbench(program: string, contestant: Contestant, clients: number): Promise<Run> {
  const threads = String(Math.min(clients, 2));
  const { processes, writers } = contestant;
  const names = Object.keys(processes);
  const before = names.map((name) => cpuTimeMs(processes[name]));
  const ownBefore = process.cpuUsage();
  const activityBefore = activityOf(writers[0]);
  const command = [program, "-N", "-n", "-M", "prepared", "-c", String(clients), "-j", threads, "-T", args.seconds, ...connection(contestant.port), "postgres"];
  const { out, cpuUs } = await runTool(command, contestant.environment);
  const transactions = Number(/actually processed: (\d+)/.exec(out)?.[1]);
  const own = process.cpuUsage(ownBefore);
  const activity = activityOf(writers[0]);
  const spent = names.map((name, index): [string, number] => [name, ((cpuTimeMs(processes[name]) - before[index]) * 1000) / transactions]);
  return {
    tps: Number(/tps = ([\d.]+)/.exec(out)?.[1]),
    latencyMs: Number(/latency average = ([\d.]+) ms/.exec(out)?.[1]),
    // The compute's proposer runs in this process.
    cpuUs: { pgbench: cpuUs / transactions, proposer: (own.user + own.system) / transactions, ...Object.fromEntries(spent) },
    writes: (activity.writes - activityBefore.writes) / transactions,
    sleeps: (activity.sleeps - activityBefore.sleeps) / transactions,
  };
}

function whereItGoes(runs: readonly Run[]): string {
  const parts = Object.keys(runs[0].cpuUs).map((name) => `${name} ${median(runs.map((run) => run.cpuUs[name])).toFixed(0)}`);
  const total = median(runs.map((run) => Object.values(run.cpuUs).reduce((sum, us) => sum + us, 0)));
  return `${total.toFixed(0)} µs of CPU (${parts.join(", ")}); a writer: ${median(runs.map((run) => run.writes)).toFixed(2)} writes, ${median(runs.map((run) => run.sleeps)).toFixed(2)} sleeps`;
}

async function main(bench: Bench): Promise<void> {
  const program = findTool("pgbench");
  if (program === null) return;
  const opponent = await startReceivers(bench);
  const contestants = [...(opponent === null ? [] : [opponent]), await startOurs(bench)];
  const answered = await startAnswered(bench);
  for (const { port } of [...contestants, answered]) await runTool([program, "-i", "-q", "-s", args.scale, ...connection(port), "postgres"]);
  console.log(`pgbench -N, scale ${args.scale}, ${args.seconds} s a run`);
  for (const clients of args.clients.split(",").map(Number)) await compare(program, { contestants, answered }, clients);
}

interface Field {
  /** The opponent first, where there is one. */
  readonly contestants: readonly Contestant[];
  readonly answered: Contestant;
}

async function compare(program: string, field: Field, clients: number): Promise<void> {
  const { contestants } = field;
  // On the same server as the first, with commits that wait for nobody.
  const all: readonly Contestant[] = [...contestants, field.answered, { ...contestants[0], name: "nobody waits", environment: { PGOPTIONS: "-c synchronous_commit=off" } }];
  const runs = all.map((): Run[] => []);
  for (const contestant of all) await pgbench(program, contestant, clients);
  for (let round = 0; round < Number(args.rounds); round++) {
    for (const [index, contestant] of all.entries()) runs[index].push(await pgbench(program, contestant, clients));
  }
  const tps = runs.map((own) => median(own.map((run) => run.tps)));
  const latency = runs.map((own) => median(own.map((run) => run.latencyMs)));
  const cpu = runs.map((own) => median(own.map((run) => Object.values(run.cpuUs).reduce((sum, us) => sum + us, 0))));
  for (const [index, { name }] of all.entries()) {
    console.log(`${clients} clients  ${name.padEnd(14)} ${tps[index].toFixed(0)} tps, ${latency[index].toFixed(2)} ms   (tps: ${runs[index].map((run) => run.tps.toFixed(0)).join(" ")})`);
    console.log(`${clients} clients  ${"".padEnd(14)} a transaction: ${whereItGoes(runs[index])}`);
  }
  if (contestants.length < 2) return;
  const ratios = all.map((_, index) => ({ rate: tps[index] / tps[0], delay: latency[index] / latency[0], cpu: cpu[index] / cpu[0] }));
  console.log(`${clients} clients  ${closing(clients, ratios)}; load average ${loadavg()[0].toFixed(1)}`);
}

/** @param ratios to the opponent: its own, ours, ours with safekeepers that cost nothing */
function closing(clients: number, ratios: readonly { readonly rate: number; readonly delay: number; readonly cpu: number }[]): string {
  const [, ours, ceiling] = ratios;
  const rateGoal = clients >= 8 ? ` ${goal(ours.rate, { atLeast: 2 })}` : "";
  const delayGoal = clients === 1 ? ` ${goal(ours.delay, { atMost: 0.6 })}` : "";
  return (
    `ratio: ${ours.rate.toFixed(2)}× tps${rateGoal}, ${ours.delay.toFixed(2)}× latency${delayGoal}, ${ours.cpu.toFixed(2)}× CPU` +
    ` (safekeepers that cost nothing: ${ceiling.rate.toFixed(2)}× tps, ${ceiling.delay.toFixed(2)}× latency, ${ceiling.cpu.toFixed(2)}× CPU)`
  );
}

const bench = new Bench("commit", args.executable);
try {
  await main(bench);
} finally {
  await bench.end();
}
process.exit(0);
