/** A layer that is evicted while it is read: it comes back whole, and nobody takes it for damaged. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import { BlockCache } from "../../../src/pageserver/layers/block-cache.ts";
import { readImages } from "../../../src/pageserver/layers/image-layer.ts";
import { Layer } from "../../../src/pageserver/layers/layer.ts";
import type { LayerFile } from "../../../src/pageserver/layers/layer-file.ts";
import { ImageLayerWriter } from "../../../src/pageserver/layers/layer-writer.ts";
import { OpenLayerFiles } from "../../../src/pageserver/layers/open-layer-files.ts";
import { QuickReads } from "../../../src/pageserver/layers/quick-reads.ts";
import type { FileSystem } from "../../../src/platform/files.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";

setDefaultTimeout(60_000);

const TENANT_ID = "0123456789abcdef0123456789abcdef";
const KEY = relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, 1);
const PAGE = Uint8Array.from({ length: 8192 }, (_, i) => Math.imul(i, 0x9e3779b1) >>> 24);

let directory: string;
const log = new RecordingLogger();
let layer: Layer;
let downloads: number;
/** Waited for before a file is removed, or a layer file opened. */
let beforeRemove: Promise<void>;
let beforeOpen: Promise<void>;

beforeEach(async () => {
  directory = await mkdtemp(`${tmpdir()}/strata-layer-`);
  downloads = 0;
  beforeRemove = beforeOpen = Promise.resolve();
  const { files: real, clock } = realPlatform();
  const files: FileSystem = Object.create(real);
  files.remove = (path) => beforeRemove.then(() => real.remove(path));
  files.open = (path, mode) => (mode === "read" ? beforeOpen : Promise.resolve()).then(() => real.open(path, mode));
  const writer = await ImageLayerWriter.create({ files: real, directory, uniqueName: "layer", tenantId: TENANT_ID, timelineId: "1".repeat(32), generation: 1, zstdLevel: null });
  await writer.put(KEY, PAGE);
  const written = await writer.finish({ start: KEY, end: { ...KEY, field6: 2 } }, 0x1000);
  await copyFile(written.path, `${directory}/object`);
  layer = new Layer(
    {
      files, clock, log, cache: new BlockCache({ capacityBytes: 1 << 20 }), openFiles: new OpenLayerFiles({ maxOpen: 4 }), quickReads: new QuickReads(clock), tenantId: TENANT_ID, directory,
      isUploaded: () => true,
      download: async (wanted) => {
        downloads++;
        await copyFile(`${directory}/object`, wanted.path);
      },
    },
    { name: written.name, metadata: { sizeBytes: written.sizeBytes, generation: 1, shard: { number: 0, count: 0 }, crc: written.crc }, resident: true },
  );
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
  log.assertQuiet();
});

async function expectReadable(): Promise<void> {
  const [image] = await layer.withFile((file: LayerFile) => readImages(file, [KEY]));
  expect(Buffer.compare(image as Uint8Array, PAGE)).toBe(0);
}

test("a download asked for during an eviction begins when the old file is gone", async () => {
  const removal = Promise.withResolvers<void>();
  beforeRemove = removal.promise;
  const eviction = layer.evict();
  const read = expectReadable();
  await Bun.sleep(20);
  expect(downloads).toBe(0);
  removal.resolve();
  expect(await eviction).toBe(true);
  await read;
  expect([downloads, layer.isResident, existsSync(layer.path)]).toEqual([1, true, true]);
  await expectReadable();
  expect(downloads).toBe(1);
});

test("however many ask for an absent layer, it is fetched once", async () => {
  expect(await layer.evict()).toBe(true);
  await Promise.all(Array.from({ length: 30 }, () => expectReadable()));
  expect(downloads).toBe(1);
});

test("a read that comes too late for the old file reads the new one", async () => {
  const opening = Promise.withResolvers<void>();
  beforeOpen = opening.promise;
  const late = expectReadable();
  expect(await layer.evict()).toBe(true);
  // Somebody else has it fetched again, and evicted, before the first one gets to open its file.
  await layer.makeResident();
  expect(await layer.evict()).toBe(true);
  opening.resolve();
  await late;
  expect([downloads, layer.isResident]).toEqual([2, true]);
});

test("damage is told once, and mended once, for all who meet it", async () => {
  await writeFile(layer.path, new Uint8Array(40_000));
  log.expectWarn(/is damaged, fetching it again/);
  await Promise.all([expectReadable(), expectReadable(), expectReadable()]);
  expect(downloads).toBe(1);
  expect(log.entries.filter(({ level }) => level === "warn").length).toBe(1);
});

test("what is held is neither evicted nor deleted", async () => {
  const release = await layer.hold();
  expect([layer.isEvictable, await layer.evict()]).toEqual([false, false]);
  const deletion = layer.deleteLocal();
  await Bun.sleep(10);
  expect(existsSync(layer.path)).toBe(true);
  release();
  await deletion;
  expect(existsSync(layer.path)).toBe(false);
  expect(await layer.hold().catch((error: unknown) => error)).toMatchObject({ code: "layer-deleted" });
});
