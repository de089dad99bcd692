/** A small store on a virtual disk, and what its pages must be; one bit after the other is flipped in it. */
import { StrataError } from "../../../src/kit/errors.ts";
import type { Key } from "../../../src/keyspace/key.ts";
import { slruBlockKey } from "../../../src/keyspace/mapping.ts";
import { VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import type { Timeline } from "../../../src/pageserver/timeline/timeline.ts";
import type { TimelineManager } from "../../../src/pageserver/timelines/timeline-manager.ts";
import { NaiveTimeline } from "../../pageserver/timeline/naive-timeline.ts";
import { type StorageFixture, storageFixture } from "../../pageserver/timeline/storage-fixture.ts";

const TIMELINE = "11111111111111111111111111111111";
const LSNS = [0x1000, 0x1010, 0x1020, 0x1030];
const KEYS: Key[] = [0, 1, 2].map((block) => slruBlockKey("clog", 0, block));

export interface BitflipOptions {
  /** Every how many bytes one is damaged; 1 for all. */
  readonly stride: number;
  readonly seed: number;
}

export interface BitflipResult {
  flips: number;
  /** The page was right: from a good copy, or the byte did not matter to it. */
  right: number;
  /** Typed errors of kind corrupt (and such like), by code. */
  readonly refused: Map<string, number>;
}

/** @throws Error naming file, byte and bit when a page is wrong or an error is not typed */
export function runBitflip(options: BitflipOptions): BitflipResult {
  const world = new VirtualWorld({ seed: options.seed });
  return world.clock.run(() => flipAll(world, options), { maxMs: 1e12, maxSteps: 1e12 });
}

async function flipAll(world: VirtualWorld, options: BitflipOptions): Promise<BitflipResult> {
  const fixture = await storageFixture({ machine: world.machine("pageserver") });
  const naive = new NaiveTimeline(0);
  await buildStore(fixture, naive);
  const result: BitflipResult = { flips: 0, right: 0, refused: new Map() };
  const run = new FlipRun({ fixture, naive, result, options, bit: () => world.random.below(8) });
  await run.localLayers();
  await run.bucketLayers();
  await run.index();
  await fixture.close();
  return result;
}

/** Two delta layers and an image; pages that differ at each LSN. */
async function buildStore(fixture: StorageFixture, naive: NaiveTimeline): Promise<void> {
  fixture.liveKeys = () => KEYS;
  const manager = await fixture.attach(1);
  const timeline = await manager.createTimeline({ timelineId: TIMELINE, initdbLsn: LSNS[0], pgVersion: 17 });
  for (const lsn of LSNS) {
    const values = KEYS.map((key, i) =>
      lsn === LSNS[0]
        ? { key, lsn, value: { kind: "image" as const, bytes: new Uint8Array(8192).fill(i) } }
        : { key, lsn, value: { kind: "neon" as const, record: { type: "clog-set-committed" as const, xids: [i * 32768 + lsn], timestamp: BigInt(lsn) } } },
    );
    for (const value of values) naive.put(value);
    await timeline.put(values);
    timeline.advance(lsn, lsn - 8);
    if (lsn !== LSNS[2]) await timeline.freezeAndFlush();
    if (lsn === LSNS[1]) await manager.maintenanceOf(TIMELINE).compact({ forceL0: true, forceImages: true });
  }
  await manager.shutdown({ flush: true });
}

interface FlipContext {
  readonly fixture: StorageFixture;
  readonly naive: NaiveTimeline;
  readonly result: BitflipResult;
  readonly options: BitflipOptions;
  readonly bit: () => number;
}

class FlipRun {
  readonly #context: FlipContext;
  #generation = 1;

  constructor(context: FlipContext) {
    this.#context = context;
  }

  async #attach(): Promise<TimelineManager> {
    const manager = await this.#context.fixture.attach(++this.#generation);
    await manager.loadTimelines();
    return manager;
  }

  /** A damaged local file: the copy in the bucket takes its place. */
  async localLayers(): Promise<void> {
    const manager = await this.#attach();
    const timeline = manager.get(TIMELINE);
    for (const layer of timeline.stack.map.layers()) {
      await this.#flipFile(layer.path, async (where) => {
        await timeline.deps.openFiles.forget(layer);
        await this.#compare(timeline, where, { mayFail: false });
      });
    }
    await manager.shutdown({ flush: false });
  }

  /** A damaged object, and no local file: a typed error, and nothing is kept of it. */
  async bucketLayers(): Promise<void> {
    const { fixture } = this.#context;
    const manager = await this.#attach();
    const timeline = manager.get(TIMELINE);
    const objects = (await fixture.bucket.list({ prefix: "" })).objects.filter(({ key }) => !key.includes("index_part"));
    for (const { key } of objects) {
      await this.#flipFile(`/storage/bucket/${key}`, async (where) => {
        for (const layer of timeline.stack.map.layers()) await layer.evict();
        await this.#compare(timeline, where, { mayFail: true });
      });
    }
    await manager.shutdown({ flush: false });
  }

  /** A damaged index: the timeline is broken, nothing of it is deleted. */
  async index(): Promise<void> {
    const { fixture } = this.#context;
    const before = (await fixture.bucket.list({ prefix: "" })).objects;
    const key = before.filter(({ key: name }) => name.includes("index_part")).at(-1)?.key ?? "";
    await this.#flipFile(`/storage/bucket/${key}`, async (where) => {
      const manager = await this.#attach();
      const broken = manager.brokenTimelines.get(TIMELINE);
      if (broken !== undefined) this.#count(broken, where);
      else await this.#compare(manager.get(TIMELINE), where, { mayFail: false });
      await manager.shutdown({ flush: false });
      const after = (await fixture.bucket.list({ prefix: "" })).objects;
      if (after.length < before.length) throw new Error(`${where}: objects were deleted`);
    });
  }

  /** Calls `look` once for each damaged byte; the file is whole again afterwards. */
  async #flipFile(path: string, look: (where: string) => Promise<void>): Promise<void> {
    const { fixture, options, result } = this.#context;
    const { files } = fixture.platform;
    const good = await files.readFile(path);
    for (let at = this.#context.options.seed % options.stride; at < good.length; at += options.stride) {
      const bit = this.#context.bit();
      const bad = good.slice();
      bad[at] ^= 1 << bit;
      await writeWhole(fixture, path, bad);
      result.flips++;
      await look(`${path} byte ${at} bit ${bit}`);
      await writeWhole(fixture, path, good);
    }
  }

  async #compare(timeline: Timeline, where: string, expectation: { mayFail: boolean }): Promise<void> {
    const { naive, result } = this.#context;
    let failed = false;
    for (const lsn of LSNS) {
      const pages = await timeline.getVectored(KEYS, lsn, { task: "verify" });
      for (let i = 0; i < KEYS.length; i++) {
        const page = pages[i];
        if (page instanceof Error) {
          if (!expectation.mayFail) throw new Error(`${where}: not repaired`, { cause: page });
          if (!failed) this.#count(page, where);
          failed = true;
        } else if (Buffer.compare(page, naive.get(KEYS[i], lsn) ?? new Uint8Array(0)) !== 0) {
          throw new Error(`${where}: page ${i} at ${lsn} is wrong`);
        }
      }
    }
    if (!failed) result.right++;
  }

  #count(error: unknown, where: string): void {
    if (!(error instanceof StrataError)) throw new Error(`${where}: not a typed error`, { cause: error });
    this.#context.result.refused.set(error.code, (this.#context.result.refused.get(error.code) ?? 0) + 1);
  }
}

async function writeWhole(fixture: StorageFixture, path: string, bytes: Uint8Array): Promise<void> {
  const file = await fixture.platform.files.open(path, "create");
  await file.write(bytes, 0);
  await file.sync();
  await file.close();
}
