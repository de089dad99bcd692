/** Image layers are made on a thread, of files: the same bytes as made here, with ancestors, and no half of one when something goes wrong. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { Cancelled } from "../../../src/kit/errors.ts";
import type { Key } from "../../../src/keyspace/key.ts";
import { AUX_FILE_RANGE, relBlockKey } from "../../../src/keyspace/mapping.ts";
import { JobsHere, type JobRunner, JobsOnThreads, type LayerJob } from "../../../src/pageserver/layer-jobs/layer-jobs.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import { RealJobThreads } from "../../../src/platform/real/job-threads.ts";
import { WORKER_URLS } from "../../../src/worker-urls.ts";
import { type StorageFixture, storageFixture } from "../timeline/storage-fixture.ts";

setDefaultTimeout(60_000);

const ROOT = "11111111111111111111111111111111";
const CHILD = "22222222222222222222222222222222";
const KEYS = 300;
const BRANCH_LSN = 0x1040;
const CONTEXT = { task: "test" };

function block(number: number): Key {
  return relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, number);
}

function auxKey(number: number): Key {
  return { ...AUX_FILE_RANGE.start, field6: number };
}

function page(number: number, lsn: number): Uint8Array {
  return Uint8Array.from({ length: 8192 }, (_, i) => (number % 2 === 0 ? number + (lsn & 0xff) : Math.imul(i + lsn, 0x9e3779b1) >>> 24));
}

/** Of every third block at each LSN; of all at the first. Removes an aux file at times. */
async function write(timeline: Timeline, lsns: readonly number[], options: { readonly flush: boolean }): Promise<void> {
  for (const lsn of lsns) {
    const numbers = Array.from({ length: KEYS }, (_, number) => number).filter((number) => lsn === 0x1000 || (number * 16 + lsn) % 3 === 0);
    const aux = { key: auxKey(lsn % 5), lsn, value: { kind: "image" as const, bytes: lsn % 3 === 0 ? new Uint8Array(0) : page(1, lsn).subarray(0, 100) } };
    await timeline.put([...numbers.map((number) => ({ key: block(number), lsn, value: { kind: "image" as const, bytes: page(number, lsn) } })), aux]);
    timeline.advance(lsn, lsn - 8);
  }
  if (options.flush) await timeline.freezeAndFlush();
}

const OWN_LSNS = [0x1050, 0x1060, 0x1071];

let fixture: StorageFixture;
let threads: RealJobThreads;
beforeEach(async () => {
  fixture = await storageFixture();
  fixture.liveKeys = () => Array.from({ length: KEYS }, (_, number) => block(number));
  threads = new RealJobThreads(WORKER_URLS.layerJobs, 1);
});
afterEach(async () => {
  await threads.close();
  await fixture.close();
  fixture.log.assertQuiet();
});

/** A root whose last values up to the branch point are in memory, and a branch with changes of its own in a file. */
async function makeBranch(runner: JobRunner, name: string): Promise<{ manager: TimelineManager; root: Timeline; child: Timeline }> {
  fixture.jobRunner = runner;
  await fixture.platform.files.makeDirectory(`${fixture.directory}/${name}`);
  const manager = await fixture.attach(1, { directory: `${fixture.directory}/${name}` });
  const root = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  await write(root, [0x1000, 0x1010, 0x1020], { flush: true });
  await root.waitUploaded();
  await write(root, [0x1030, BRANCH_LSN, 0x1048], { flush: false });
  const child = await manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT, lsn: BRANCH_LSN });
  await write(child, OWN_LSNS, { flush: true });
  return { manager, root, child };
}

async function imageFiles(timeline: Timeline): Promise<string[]> {
  const images = [...timeline.stack.map.layers()].filter((layer) => layer.name.kind === "image");
  return (await Promise.all(images.map(async (layer) => `${layer} ${Bun.hash(await readFile(layer.path)).toString(16)}`))).toSorted();
}

async function expectPages(timeline: Timeline, lsn: number): Promise<void> {
  const lsns = [0x1000, 0x1010, 0x1020, 0x1030, BRANCH_LSN, ...OWN_LSNS];
  const pages = await timeline.getVectored(Array.from({ length: KEYS }, (_, number) => block(number)), lsn, CONTEXT);
  for (let number = 0; number < KEYS; number++) {
    const newest = lsns.findLast((one) => one <= lsn && (one === 0x1000 || (number * 16 + one) % 3 === 0)) ?? 0;
    expect(Buffer.compare(pages[number] as Uint8Array, page(number, newest))).toBe(0);
  }
}

test("a thread makes the image of a branch from its ancestor's files too, byte for byte as it is made here", async () => {
  const here = await makeBranch(new JobsHere(fixture.platform), "here");
  await here.manager.maintenanceOf(CHILD).compact({ forceImages: true });
  const there = await makeBranch(new JobsOnThreads(threads), "there");
  const auxBefore = await there.child.scan(AUX_FILE_RANGE, 0x1071, CONTEXT);
  await there.manager.maintenanceOf(CHILD).compact({ forceImages: true });
  // What the branch sees of the root was in memory: it had to be put in a file.
  expect(there.root.diskConsistentLsn).toBeGreaterThanOrEqual(BRANCH_LSN);
  const images = await imageFiles(there.child);
  expect(images.length).toBe(2);
  expect(images).toEqual(await imageFiles(here.child));
  await expectPages(there.child, 0x1071);
  expect(await there.child.scan(AUX_FILE_RANGE, 0x1071, CONTEXT)).toEqual(auxBefore);
  // The next image is made of this one and what came after.
  await write(there.child, [0x1080, 0x1090], { flush: true });
  const jobs: LayerJob[] = [];
  const runner = fixture.jobRunner as JobRunner;
  const run = runner.run.bind(runner);
  runner.run = (job, signal) => {
    jobs.push(job);
    return run(job, signal);
  };
  await there.manager.maintenanceOf(CHILD).compact({ forceImages: true });
  const dense = jobs.find((job) => job.kind === "create-image" && !job.sparse);
  expect(dense?.kind === "create-image" ? dense.sources.map(({ layers }) => layers.length) : []).toEqual([2]);
  expect((await imageFiles(there.child)).length).toBe(4);
  for (const { manager } of [here, there]) await manager.shutdown({ flush: false });
});

test("a key that the newest image lacks is looked for below it", async () => {
  const { manager, child } = await makeBranch(new JobsOnThreads(threads), "there");
  fixture.liveKeys = () => Array.from({ length: KEYS }, (_, number) => block(number)).filter((_, number) => number !== 7);
  await manager.maintenanceOf(CHILD).compact({ forceImages: true });
  await write(child, [0x1081], { flush: true });
  fixture.liveKeys = () => Array.from({ length: KEYS }, (_, number) => block(number));
  await manager.maintenanceOf(CHILD).compact({ forceImages: true });
  const newest = 0x1081;
  expect((7 * 16 + newest) % 3).not.toBe(0);
  expect(await child.get(block(7), newest, CONTEXT)).toEqual(await child.get(block(7), 0x1071, CONTEXT));
  await expectPages(child, 0x1071);
  await manager.shutdown({ flush: false });
});

test("a thread that dies is a typed error, and the next round makes the image", async () => {
  const runner = new JobsOnThreads(threads);
  const { manager, child } = await makeBranch(runner, "there");
  const run = runner.run.bind(runner);
  runner.run = async (job, signal) => {
    if (job.kind !== "create-image") return await run(job, signal);
    runner.run = run;
    const pending = run(job, signal);
    await threads.close();
    return await pending;
  };
  const maintenance = manager.maintenanceOf(CHILD);
  expect(await maintenance.compact({ forceImages: true }).catch((error: unknown) => error)).toMatchObject({ kind: "unavailable", code: "worker-ended" });
  expect(await imageFiles(child)).toEqual([]);
  threads = new RealJobThreads(WORKER_URLS.layerJobs, 1);
  runner.run = (job, signal) => new JobsOnThreads(threads).run(job, signal);
  await maintenance.compact({ forceImages: true });
  expect((await imageFiles(child)).length).toBe(2);
  await manager.shutdown({ flush: false });
});

test("an image under way ends with its timeline, and leaves no file", async () => {
  const runner = new JobsOnThreads(threads);
  const { manager, child } = await makeBranch(runner, "there");
  const run = runner.run.bind(runner);
  const began = Promise.withResolvers<void>();
  runner.run = (job, signal) => {
    if (job.kind === "create-image") began.resolve();
    return run(job, signal);
  };
  const image = manager.maintenanceOf(CHILD).compact({ forceImages: true }).catch((error: unknown) => error);
  await began.promise;
  await manager.shutdown({ flush: false });
  expect(await image).toBeInstanceOf(Cancelled);
  expect((await readdir(child.directory)).filter((name) => name.includes("temp"))).toEqual([]);
});

test("inputs stay while they are read, and damage is mended for the next round", async () => {
  const runner = new JobsOnThreads(threads);
  const { manager, child, root } = await makeBranch(runner, "there");
  await root.freezeAndFlush();
  await root.waitUploaded();
  await child.waitUploaded();
  const [input] = child.stack.map.l0;
  const bytes = await readFile(input.path);
  bytes[20_000] ^= 1;
  await writeFile(input.path, bytes);
  const run = runner.run.bind(runner);
  const evicted: boolean[] = [];
  runner.run = async (job, signal) => {
    for (const layer of [...child.stack.map.layers(), ...root.stack.map.layers()]) if (layer.isResident) evicted.push(await layer.evict());
    return await run(job, signal);
  };
  const maintenance = manager.maintenanceOf(CHILD);
  fixture.log.expectWarn(/is damaged, fetching it again/);
  expect(await maintenance.compact({ forceImages: true }).catch((error: unknown) => error)).toMatchObject({ kind: "corrupt", code: "layer-checksum-mismatch" });
  expect(evicted).toEqual(evicted.map(() => false));
  expect(evicted.length).toBeGreaterThan(2);
  runner.run = run;
  await maintenance.compact({ forceImages: true });
  await expectPages(child, 0x1071);
  expect(await input.evict()).toBe(true);
  await manager.shutdown({ flush: false });
});

test("an ancestor that has not caught up puts images off; by hand it is said", async () => {
  const { manager, child } = await makeBranch(new JobsOnThreads(threads), "there");
  await child.waitUploaded();
  await manager.shutdown({ flush: false });
  const next = await fixture.attach(2, { directory: `${fixture.directory}/there` });
  await next.loadTimelines();
  const again = next.get(CHILD);
  expect(next.get(ROOT).lastRecordLsn).toBeLessThan(BRANCH_LSN);
  expect(await next.maintenanceOf(CHILD).compact({ forceImages: true }).catch((error: unknown) => error)).toMatchObject({ kind: "retry", code: "ancestor-not-on-disk" });
  fixture.config = { ...fixture.config, imageCreationThreshold: 0 };
  await next.maintenanceOf(CHILD).compact();
  expect(await imageFiles(again)).toEqual([]);
  await write(next.get(ROOT), [0x1030, BRANCH_LSN, 0x1048], { flush: false });
  await next.maintenanceOf(CHILD).compact();
  expect((await imageFiles(again)).length).toBe(2);
  await expectPages(again, 0x1071);
  await next.shutdown({ flush: false });
});
