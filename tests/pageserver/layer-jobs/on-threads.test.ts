/** Layers made on a thread are the same bytes as those made here; damage and cancellation arrive where they should. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdir, readFile, writeFile } from "node:fs/promises";
import type { Key } from "../../../src/keyspace/key.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import { JobsHere, type JobRunner, JobsOnThreads } from "../../../src/pageserver/layer-jobs/layer-jobs.ts";
import { LayerMemory } from "../../../src/pageserver/layers/layer-memory.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import { RealJobThreads } from "../../../src/platform/real/job-threads.ts";
import { WORKER_URLS } from "../../../src/worker-urls.ts";
import { type StorageFixture, storageFixture } from "../timeline/storage-fixture.ts";

setDefaultTimeout(60_000);

const ROOT = "11111111111111111111111111111111";
const KEYS = 60;
const ROUNDS = 40;

function block(number: number): Key {
  return relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, number);
}

/** The same for every timeline: pages that pack well and pages that do not. */
function page(number: number, lsn: number): Uint8Array {
  return Uint8Array.from({ length: 8192 }, (_, i) => (number % 2 === 0 ? number : Math.imul(i + lsn, 0x9e3779b1) >>> 24));
}

let fixture: StorageFixture;
let threads: RealJobThreads;
beforeEach(async () => {
  fixture = await storageFixture();
  threads = new RealJobThreads(WORKER_URLS.layerJobs, 1);
});
afterEach(async () => {
  await fixture.close();
  await threads.close();
});

async function filled(runner: JobRunner, name: string): Promise<{ timeline: Timeline; compact: () => Promise<void>; end: () => Promise<void> }> {
  fixture.jobRunner = runner;
  const manager = await fixture.attach(1, { directory: `${fixture.directory}/${name}` });
  await fixture.platform.files.makeDirectory(`${fixture.directory}/${name}`);
  const timeline = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  for (let round = 0; round < ROUNDS; round++) {
    const lsn = 0x1000 + round * 0x10;
    const numbers = Array.from({ length: KEYS }, (_, number) => number).filter((number) => (number + round) % 3 !== 0 || round === 0);
    await timeline.put(numbers.map((number) => ({ key: block(number), lsn, value: { kind: "image" as const, bytes: page(number, lsn) } })));
    timeline.advance(lsn, lsn - 8);
    if (round % 10 === 9) await timeline.freezeAndFlush();
  }
  return { timeline, compact: () => manager.maintenanceOf(ROOT).compact({ forceL0: true }), end: () => manager.shutdown({ flush: false }) };
}

async function layerFiles(timeline: Timeline): Promise<Map<string, string>> {
  const layers = [...timeline.stack.map.layers()].sort((a, b) => (a.toString() < b.toString() ? -1 : 1));
  return new Map(await Promise.all(layers.map(async (layer) => [layer.toString(), Bun.hash(await readFile(layer.path)).toString(16)] as const)));
}

describe("layer jobs", () => {
  for (const memoryBytes of [0, 64 * 1024 * 1024]) {
    test(`the same bytes from a thread as from here, with ${memoryBytes} bytes for values in memory`, async () => {
      fixture.layerMemory = new LayerMemory(memoryBytes);
      const here = await filled(new JobsHere(fixture.platform), "here");
      const there = await filled(new JobsOnThreads(threads), "there");
      expect(await layerFiles(there.timeline)).toEqual(await layerFiles(here.timeline));
      expect([...there.timeline.stack.map.l0].length).toBe(4);
      await here.compact();
      await there.compact();
      const after = await layerFiles(there.timeline);
      expect(after).toEqual(await layerFiles(here.timeline));
      expect(there.timeline.stack.map.l0.length).toBe(0);
      const lsn = 0x1000 + (ROUNDS - 1) * 0x10;
      for (let number = 0; number < KEYS; number++) {
        const newest = (number + ROUNDS - 1) % 3 !== 0 ? lsn : lsn - 0x10;
        expect(Buffer.compare(await there.timeline.get(block(number), lsn, { task: "test" }), page(number, newest))).toBe(0);
      }
      await here.end();
      await there.end();
      expect(fixture.layerMemory.usedBytes).toBe(0);
    });
  }

  test("an input that is damaged on this disk is fetched again, and the next round compacts it", async () => {
    const { timeline, compact, end } = await filled(new JobsOnThreads(threads), "there");
    await timeline.waitUploaded();
    fixture.log.expectWarn(/is damaged, fetching it again/);
    const [first] = timeline.stack.map.l0;
    const bytes = await readFile(first.path);
    bytes[9000] ^= 1;
    await writeFile(first.path, bytes);
    await expect(compact()).rejects.toMatchObject({ code: "layer-checksum-mismatch" });
    expect(timeline.stack.map.l0.length).toBe(4);
    await compact();
    expect(timeline.stack.map.l0.length).toBe(0);
    expect((await readdir(timeline.directory)).filter((name) => name.includes("temp"))).toEqual([]);
    await end();
    fixture.log.assertQuiet();
  });
});
