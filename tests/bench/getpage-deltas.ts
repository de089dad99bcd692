/**
 * GetPage over a stack of L0 delta layers, one client, over libpq pagestream_v3: a table of a real PostgreSQL in image layers, and
 * above them delta layers in each of which every page changed. Random pages.
 *
 *   bun run bench getpage-deltas [--deltas 17] [--pages 2000] [--rounds 3] [--seconds 2] [--depth 16] [--pruning] [--executable dist/strata]
 *
 * "made" is the honest figure: each round asks a new branch, at an LSN of its own, for each page once, so that none is in the page
 * cache and each is made of the image and all records; the blocks of layers are in memory. "inherited" asks a second branch at that LSN,
 * once for each page: what the first one read serves it too. "cached" asks for pages that were read before. All three with one request
 * at a time, where waking up both processes for each answer is part of it; "at depth" is with several under way, where the rate
 * is what one core can do. A page has one record in each layer, as in the peer's benchmark of such stacks (its make_l0_stack); with
 * --pruning two from the second layer on.
 *
 * The opponent's figures were published for another machine: mean 218 µs, p99 747 µs, 4,552/s. "ceiling" is a bare server on the same
 * runtime that answers with as many bytes and does nothing else: no page server can be quicker with one request at a time.
 * Last line: `getpage-deltas: N/s, p50 M µs, p99 P µs over D deltas (cached: N/s)`.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { lsnToString } from "../../src/kit/lsn.ts";
import { bytes, u32, u64, u8 } from "../conformance/bytes.ts";
import { cpuTimeMs } from "./support/cpu.ts";
import { type DeltaStack, makeDeltaStack } from "./support/delta-stack.ts";
import { cleanups, type Client, http, median, PAGE_ANSWER_BYTES, pagestreamClient, startCeiling, startPageserver, TENANT } from "./support/page-client.ts";

const LATEST = 0xffff_ffff_ffff_ffffn;
/** Pages and blocks all fit: half of it is for each. */
const PAGE_CACHE_PAGES = 16_384;
/** Layers are downloaded in the first, and code is compiled for good. */
const WARM_UP_ROUNDS = 2;

const { values: args } = parseArgs({ options: { deltas: { type: "string", default: "17" }, pages: { type: "string", default: "2000" }, rounds: { type: "string", default: "3" }, seconds: { type: "string", default: "2" }, depth: { type: "string", default: "16" }, pruning: { type: "boolean", default: false }, executable: { type: "string" } } });
const root = mkdtempSync(join(tmpdir(), "strata-bench-deltas-"));
cleanups.push(() => rmSync(root, { recursive: true, force: true }));

interface Measured {
  readonly rate: number;
  readonly meanUs: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly cpuUs: number;
}

/** Requests for the latest version of each page, in random order. */
function requestsFor({ rel, pages }: DeltaStack): Uint8Array[] {
  const target = bytes(u32(rel.spcOid), u32(rel.dbOid), u32(rel.relNumber), u8(rel.fork));
  const requests = Array.from({ length: pages }, (_, block) => {
    const request = bytes(u8(2), u64(1), u64(LATEST), u64(8), target, u32(block));
    return bytes(Buffer.from("d"), u32(request.length + 4), request);
  });
  return requests.map((request) => ({ request, at: Math.random() })).sort((a, b) => a.at - b.at).map(({ request }) => request);
}

interface Load {
  readonly requests: readonly Uint8Array[];
  readonly answerBytes: number;
  readonly depth: number;
  readonly once: boolean;
}

async function measure(pid: number, client: Client, load: Load): Promise<Measured> {
  const before = cpuTimeMs([pid]);
  const { rate, answered, timesUs } = await client.run(load, { depth: load.depth, seconds: load.once ? 600 : Number(args.seconds), once: load.once });
  const cpuUs = ((cpuTimeMs([pid]) - before) * 1000) / answered;
  if (load.depth > 1) return { rate, cpuUs, meanUs: 0, p50Us: 0, p99Us: 0 };
  return { rate, meanUs: timesUs.reduce((sum, time) => sum + time, 0) / timesUs.length, p50Us: timesUs[timesUs.length >> 1], p99Us: timesUs[Math.floor(timesUs.length * 0.99)], cpuUs };
}

function report(name: string, runs: readonly Measured[]): Measured {
  const of = (what: keyof Measured): number => median(runs.map((run) => run[what]));
  const one: Measured = { rate: of("rate"), meanUs: of("meanUs"), p50Us: of("p50Us"), p99Us: of("p99Us"), cpuUs: of("cpuUs") };
  const times = one.meanUs === 0 ? "" : ` mean ${one.meanUs.toFixed(0)} µs, p50 ${one.p50Us.toFixed(0)} µs, p99 ${one.p99Us.toFixed(0)} µs,`;
  console.log(`${name.padEnd(19)}${one.rate.toFixed(0).padStart(7)}/s,${times} ${one.cpuUs.toFixed(1)} µs of processor each   (runs: ${runs.map((run) => run.rate.toFixed(0)).join(" ")})`);
  return one;
}

interface Server {
  readonly pid: number;
  readonly pgPort: number;
  readonly httpPort: number;
}

interface Ceiling {
  readonly pid: number;
  readonly client: Client;
}

/** The stack, served. */
class Bench {
  readonly #stack: DeltaStack;
  readonly #server: Server;
  readonly #requests: readonly Uint8Array[];
  readonly #ceiling: Ceiling;
  readonly runs = new Map<string, Measured[]>();
  #branches = 0;

  constructor(stack: DeltaStack, server: Server, ceiling: Ceiling) {
    this.#stack = stack;
    this.#server = server;
    this.#ceiling = ceiling;
    this.#requests = requestsFor(stack);
  }

  async #newBranch(lsn: number): Promise<Client> {
    const timelineId = (++this.#branches).toString(16).padStart(32, "b");
    await http(this.#server.httpPort, `POST /v1/tenant/${TENANT}/timeline`, { new_timeline_id: timelineId, ancestor_timeline_id: this.#stack.timelineId, ancestor_start_lsn: lsnToString(lsn), pg_version: 17 });
    const client = await pagestreamClient(this.#server.pgPort, timelineId);
    // The relation's size.
    await client.exchange(this.#requests[0], PAGE_ANSWER_BYTES);
    return client;
  }

  #note(name: string, measured: Measured): void {
    this.runs.set(name, [...(this.runs.get(name) ?? []), measured]);
  }

  /** @param lsn nobody asked for pages at it or above before: a page that was made serves the LSNs below as well, down to its newest change */
  async round(lsn: number): Promise<void> {
    const { pid } = this.#server;
    const depth = Number(args.depth);
    const [first, second, third] = [await this.#newBranch(lsn), await this.#newBranch(lsn), await this.#newBranch(lsn + 8)];
    const once = { requests: this.#requests.slice(1), answerBytes: PAGE_ANSWER_BYTES, depth: 1, once: true };
    const again = { ...once, requests: this.#requests, once: false };
    this.#note("made", await measure(pid, first, once));
    this.#note("inherited", await measure(pid, second, once));
    this.#note("cached", await measure(pid, first, again));
    this.#note("ceiling", await measure(this.#ceiling.pid, this.#ceiling.client, again));
    this.#note(`made, depth ${depth}`, await measure(pid, third, { ...once, depth }));
    this.#note(`cached, depth ${depth}`, await measure(pid, third, { ...again, depth }));
  }
}

async function main(): Promise<void> {
  const stack = await makeDeltaStack({ rounds: Number(args.deltas), pages: Number(args.pages), workload: args.pruning ? "updates-and-pruning" : "updates" });
  cleanups.push(() => stack.remove());
  const settings = `page_cache_size = ${PAGE_CACHE_PAGES}\nremote_storage = { local_path = "${stack.bucket}" }\n`;
  const server = await startPageserver({ root, executable: args.executable, settings });
  await http(server.httpPort, `PUT /v1/tenant/${TENANT}/location_config`, { mode: "AttachedSingle", generation: 2, tenant_conf: {} });
  const bench = new Bench(stack, server, await startCeiling(requestsFor(stack)[0].length));
  const rounds = Number(args.rounds);
  const end = stack.lsns[stack.lsns.length - 1];
  for (let round = -WARM_UP_ROUNDS; round < rounds; round++) {
    if (round === 0) {
      bench.runs.clear();
      console.log(`${stack.pages} pages, ${stack.lsns.length} delta layers over an image layer, one client, load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
    }
    // Within the last records: all but a page or two have the same changes.
    await bench.round(end - 16 * (rounds - round));
  }
  const measured = new Map([...bench.runs].map(([name, runs]) => [name, report(name, runs)]));
  const [made, cached, ceiling, deep] = ["made", "cached", "ceiling", `made, depth ${args.depth}`].map((name) => measured.get(name));
  if (made === undefined || cached === undefined || ceiling === undefined || deep === undefined) throw new Error("nothing was measured");
  console.log(`what bounds it: an answer of nothing takes ${ceiling.p50Us.toFixed(0)} µs, making a page ${deep.cpuUs.toFixed(0)} µs of processor where waking up hardly counts; one after the other that is ${(1e6 / (ceiling.p50Us + deep.cpuUs)).toFixed(0)}/s`);
  console.log(`getpage-deltas: ${made.rate.toFixed(0)}/s, p50 ${made.p50Us.toFixed(0)} µs, p99 ${made.p99Us.toFixed(0)} µs over ${stack.lsns.length} deltas (cached: ${cached.rate.toFixed(0)}/s)`);
}

try {
  await main();
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
process.exit(0);
