/**
 * How long maintenance holds the event loop: merging L0 layers, making images, collecting garbage, counting, with worker threads and
 * without. A timer asked for every millisecond tells how late it came, and how much of that the main thread spent on the processor itself
 * (the system counts it for each thread): the rest is other programs'.
 *
 *   bun run bench maintenance [--pages 20000] [--rounds 6] [--layers 10000]
 *
 * Prints, for each step: wall time, longest hold by the clock and by processor time, and how many of the latter were above 10 ms. Then the
 * same of what grows with a timeline's layers: the plans of collection and eviction, and the index as it is written and read.
 * Last line: `maintenance: longest hold of processor time A ms with worker threads, B ms without, C ms over N layers`.
 */
import { readFileSync } from "node:fs";
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { relBlockKey } from "../../src/keyspace/mapping.ts";
import { JobsOnThreads } from "../../src/pageserver/layer-jobs/layer-jobs.ts";
import { type EvictionCandidate, planEviction } from "../../src/pageserver/eviction/eviction-planner.ts";
import { LayerMap, type MappedLayer } from "../../src/pageserver/layers/layer-map.ts";
import { LayerMemory } from "../../src/pageserver/layers/layer-memory.ts";
import { type LayerName, layerNameToString } from "../../src/pageserver/layers/layer-name.ts";
import { planGc } from "../../src/pageserver/maintenance/gc-planner.ts";
import { decodeIndexPartInSteps, encodeIndexPartInSteps, type IndexLayer, type IndexPart } from "../../src/pageserver/remote-timeline/index-part.ts";
import { Pacer } from "../../src/platform/pacer.ts";
import { RealJobThreads } from "../../src/platform/real/job-threads.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { WORKER_URLS } from "../../src/worker-urls.ts";
import { storageFixture } from "../pageserver/timeline/storage-fixture.ts";

const MIB = 1024 * 1024;
const { values: args } = parseArgs({ options: { pages: { type: "string", default: "20000" }, rounds: { type: "string", default: "6" }, layers: { type: "string", default: "10000" } } });
const pages = Number(args.pages);
const rounds = Number(args.rounds);
const layers = Number(args.layers);
const key = (number: number) => relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384 + Math.floor(number / 1000), fork: 0 }, number % 1000);
const page = new Uint8Array(8192);

/** Processor time of this thread so far, as Linux counts it. */
function mainThreadMs(): number {
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]) / 1e6;
}

/** The longest hold of processor time of those measured so far. */
let longestOfAllMs = 0;

/** Runs `work` and prints how it held the loop. */
async function held(what: string, work: () => Promise<unknown>): Promise<void> {
  let longestMs = 0;
  let longestCpuMs = 0;
  let above = 0;
  let lastMs = performance.now();
  let lastCpuMs = mainThreadMs();
  const timer = setInterval(() => {
    const nowMs = performance.now();
    const nowCpuMs = mainThreadMs();
    longestMs = Math.max(longestMs, nowMs - lastMs - 1);
    longestCpuMs = Math.max(longestCpuMs, nowCpuMs - lastCpuMs);
    if (nowCpuMs - lastCpuMs > 10) above++;
    lastMs = nowMs;
    lastCpuMs = nowCpuMs;
  }, 1);
  const startMs = performance.now();
  await work();
  const tookMs = performance.now() - startMs;
  clearInterval(timer);
  longestOfAllMs = Math.max(longestOfAllMs, longestCpuMs);
  console.log(`  ${what.padEnd(28)} ${tookMs.toFixed(0).padStart(6)} ms, longest hold ${longestMs.toFixed(1).padStart(6)} ms, of processor time ${longestCpuMs.toFixed(1).padStart(5)} ms, ${above} above 10 ms`);
}

async function run(threads: RealJobThreads | null): Promise<void> {
  const fixture = await storageFixture();
  fixture.layerMemory = new LayerMemory(256 * MIB);
  fixture.jobRunner = threads === null ? null : new JobsOnThreads(threads);
  fixture.config = { ...fixture.config, compactionTargetSizeBytes: 32 * MIB, checkpointDistanceBytes: 1024 * MIB };
  fixture.liveKeys = () => Array.from({ length: pages }, (_, number) => key(number));
  const manager = await fixture.attach(1);
  const timeline = await manager.createTimeline({ timelineId: "1".repeat(32), initdbLsn: 0x1000, pgVersion: 17 });
  const maintenance = manager.maintenanceOf(timeline.timelineId);
  for (let round = 0; round < rounds; round++) {
    const lsn = 0x1000 + round * 0x100;
    for (let from = 0; from < pages; from += 500) {
      const some = Array.from({ length: Math.min(500, pages - from) }, (_, i) => from + i).filter((number) => round === 0 || number % rounds === round);
      for (let i = 0; i < page.length; i += 8) page[i] = Math.imul(from + i + round, 0x9e3779b1) >>> 24;
      await timeline.put(some.map((number) => ({ key: key(number), lsn, value: { kind: "image" as const, bytes: page.slice() } })));
    }
    timeline.advance(lsn, lsn - 8);
    if (round < rounds - 1) await timeline.freezeAndFlush();
    else await held("flush", () => timeline.freezeAndFlush());
  }
  await held("merge of L0 layers", () => maintenance.compact({ forceL0: true }));
  await held("images", () => maintenance.compact({ forceImages: true }));
  await timeline.put([{ key: key(0), lsn: 0x9000, value: { kind: "image", bytes: page } }]);
  timeline.advance(0x9000, 0x8ff8);
  await timeline.freezeAndFlush();
  await held("garbage collection", () => maintenance.collectGarbage());
  console.log(`  ${timeline.stack.map.size} layers at the end`);
  await manager.shutdown({ flush: false });
  await fixture.close();
}

/** A timeline of so many layers: images side by side, each over an older one. */
async function plans(): Promise<void> {
  const { clock } = realPlatform();
  const pacer = () => new Pacer(clock);
  const map = new LayerMap<MappedLayer>();
  const indexed = new Map<string, IndexLayer>();
  const candidates: EvictionCandidate<MappedLayer>[] = [];
  for (let i = 0; i < layers; i++) {
    const name: LayerName = { kind: "image", keyRange: { start: key(i >> 1), end: key((i >> 1) + 1) }, lsn: 100 + (i % 2) * 100 };
    map.add({ name });
    indexed.set(layerNameToString(name), { name, metadata: { sizeBytes: MIB, generation: 1, shard: { number: 0, count: 0 }, crc: i } });
    candidates.push({ layer: { name }, tenant: `tenant ${i % 10}`, sizeBytes: MIB, lastAccessMs: Math.imul(i, 0x9e3779b1) >>> 0 });
  }
  const index: IndexPart = { metadata: { diskConsistentLsn: 300, prevRecordLsn: 200, ancestor: null, latestGcCutoffLsn: 100, initdbLsn: 100, pgVersion: 17 }, layers: indexed, deletedAt: null, archivedAt: null, other: {} };
  let bytes = new Uint8Array();
  await held("index written", async () => (bytes = Uint8Array.from(await pacer().run(encodeIndexPartInSteps(index)))));
  await held("index read", () => pacer().run(decodeIndexPartInSteps(bytes)));
  await held("eviction planned", () => pacer().run(planEviction(candidates, { order: { highestLayerCountLosesFirst: true }, wantedBytes: (layers / 2) * MIB, minResidentBytes: () => null })));
  await held("garbage collected", async () => {
    const look = pacer();
    for (const some of planGc(map, { cutoff: 250, branchPoints: () => [], leases: () => [] })) {
      for (const layer of some) map.remove(layer);
      await look.pause();
    }
  });
  if (map.size * 2 !== layers) throw new Error(`${map.size} layers are left of ${layers}`);
}

async function measured(what: string, work: () => Promise<void>): Promise<string> {
  console.log(`${what}:`);
  longestOfAllMs = 0;
  await work();
  return longestOfAllMs.toFixed(1);
}

console.log(`${pages} pages in ${rounds} rounds, load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`);
const threads = new RealJobThreads(WORKER_URLS.layerJobs, 1);
const withThreads = await measured("on worker threads", () => run(threads));
await threads.close();
const without = await measured("on the main thread, in slices", () => run(null));
const overLayers = await measured(`over ${layers} layers, in slices`, plans);
console.log(`maintenance: longest hold of processor time ${withThreads} ms with worker threads, ${without} ms without, ${overLayers} ms over ${layers} layers`);
