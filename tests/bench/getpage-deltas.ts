/**
 * GetPage over a stack of L0 delta layers, one client, over libpq pagestream_v3: a table of a real PostgreSQL in image layers, and
 * above them delta layers in each of which every page changed. Random pages, one request at a time.
 *
 *   bun run bench getpage-deltas [--deltas 17] [--pages 2000] [--rounds 3] [--seconds 2] [--executable dist/strata]
 *
 * "made" is the honest figure: each round asks a new branch, at an LSN of its own, for each page once, so that none is in the page
 * cache and each is made of the image and all records; the blocks of layers are in memory. "inherited" asks a second branch at that LSN,
 * once for each page: what the first one read serves it too. "cached" asks for pages that were read before.
 * The opponent's figures were published for another machine: mean 218 µs, p99 747 µs, 4,552/s.
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
import { cleanups, type Client, http, median, PAGE_ANSWER_BYTES, pagestreamClient, startPageserver, TENANT } from "./support/page-client.ts";

const LATEST = 0xffff_ffff_ffff_ffffn;
/** Pages and blocks all fit: half of it is for each. */
const PAGE_CACHE_PAGES = 16_384;

const { values: args } = parseArgs({ options: { deltas: { type: "string", default: "17" }, pages: { type: "string", default: "2000" }, rounds: { type: "string", default: "3" }, seconds: { type: "string", default: "2" }, executable: { type: "string" } } });
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

async function measure(pid: number, client: Client, load: { readonly requests: readonly Uint8Array[]; readonly once: boolean }): Promise<Measured> {
  const before = cpuTimeMs([pid]);
  const { rate, answered, timesUs } = await client.run({ requests: load.requests, answerBytes: PAGE_ANSWER_BYTES }, { depth: 1, seconds: load.once ? 600 : Number(args.seconds), once: load.once });
  const cpuUs = ((cpuTimeMs([pid]) - before) * 1000) / answered;
  return { rate, meanUs: timesUs.reduce((sum, time) => sum + time, 0) / timesUs.length, p50Us: timesUs[timesUs.length >> 1], p99Us: timesUs[Math.floor(timesUs.length * 0.99)], cpuUs };
}

function report(name: string, runs: readonly Measured[]): Measured {
  const of = (what: keyof Measured): number => median(runs.map((run) => run[what]));
  const one: Measured = { rate: of("rate"), meanUs: of("meanUs"), p50Us: of("p50Us"), p99Us: of("p99Us"), cpuUs: of("cpuUs") };
  console.log(`${name.padEnd(10)}${one.rate.toFixed(0).padStart(7)}/s, mean ${one.meanUs.toFixed(0)} µs, p50 ${one.p50Us.toFixed(0)} µs, p99 ${one.p99Us.toFixed(0)} µs, ${one.cpuUs.toFixed(1)} µs of processor each   (runs: ${runs.map((run) => run.rate.toFixed(0)).join(" ")})`);
  return one;
}

async function main(): Promise<void> {
  const stack = await makeDeltaStack({ rounds: Number(args.deltas), pages: Number(args.pages) });
  cleanups.push(() => stack.remove());
  const settings = `page_cache_size = ${PAGE_CACHE_PAGES}\nremote_storage = { local_path = "${stack.bucket}" }\n`;
  const { pid, pgPort, httpPort } = await startPageserver({ root, executable: args.executable, settings });
  await http(httpPort, `PUT /v1/tenant/${TENANT}/location_config`, { mode: "AttachedSingle", generation: 2, tenant_conf: {} });
  const made: Measured[] = [];
  const inherited: Measured[] = [];
  const cached: Measured[] = [];
  const rounds = Number(args.rounds);
  const end = stack.lsns[stack.lsns.length - 1];
  const requests = requestsFor(stack);
  const newBranch = async (timelineId: string, lsn: number): Promise<Client> => {
    await http(httpPort, `POST /v1/tenant/${TENANT}/timeline`, { new_timeline_id: timelineId, ancestor_timeline_id: stack.timelineId, ancestor_start_lsn: lsnToString(lsn), pg_version: 17 });
    const client = await pagestreamClient(pgPort, timelineId);
    // The relation's size.
    await client.exchange(requests[0], PAGE_ANSWER_BYTES);
    return client;
  };
  // The first is to warm up: layers are downloaded, and the code compiled.
  for (let round = 0; round <= rounds; round++) {
    // Within the last record, a commit: all of them have the same changes.
    const lsn = end - 8 * (rounds - round);
    const number = (round + 1).toString(16).padStart(8, "0");
    const [first, second] = [await newBranch(number.padStart(32, "b"), lsn), await newBranch(number.padStart(32, "c"), lsn)];
    const once = { requests: requests.slice(1), once: true };
    const results = [await measure(pid, first, once), await measure(pid, second, once), await measure(pid, first, { requests, once: false })];
    if (round === 0) console.log(`${stack.pages} pages, ${stack.lsns.length} delta layers over an image layer, one client, load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
    else [made, inherited, cached].forEach((runs, index) => runs.push(results[index]));
  }
  const honest = report("made", made);
  report("inherited", inherited);
  const { rate } = report("cached", cached);
  console.log(`getpage-deltas: ${honest.rate.toFixed(0)}/s, p50 ${honest.p50Us.toFixed(0)} µs, p99 ${honest.p99Us.toFixed(0)} µs over ${stack.lsns.length} deltas (cached: ${rate.toFixed(0)}/s)`);
}

try {
  await main();
} finally {
  for (const cleanup of cleanups.reverse()) await cleanup();
}
process.exit(0);
