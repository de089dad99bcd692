/** Vectored reads: what lies together is read together, and a key that is missing is told with where it was looked for. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import type { FileSystem } from "../../../src/platform/files.ts";
import { storageFixture } from "./storage-fixture.ts";

setDefaultTimeout(60_000);

const ROOT = "11111111111111111111111111111111";
const CHILD = "22222222222222222222222222222222";
const KEYS = 64;
const CONTEXT = { task: "test" };
const key = (number: number) => relBlockKey({ spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 }, number);
const page = (number: number): Uint8Array => Uint8Array.from({ length: 8192 }, (_, i) => Math.imul(i + number * 8192, 0x9e3779b1) >>> 24);

test("neighbouring pages come by few reads of the file, each checked; those far apart by one each", async () => {
  let reads = 0;
  const fixture = await storageFixture({
    cacheBytes: 0,
    files: (real) => {
      const files: FileSystem = Object.create(real);
      files.open = async (path, mode) => {
        const file = await real.open(path, mode);
        if (mode !== "read" || !path.includes("__")) return file;
        return {
          path: file.path,
          read: (into, position) => {
            reads++;
            return file.read(into, position);
          },
          // As of a file that is not in memory: everything goes the vectored way.
          readSync: () => {
            throw new Error("not without waiting");
          },
          write: (bytes, position) => file.write(bytes, position),
          writeSync: (bytes, position) => file.writeSync(bytes, position),
          truncate: (sizeBytes) => file.truncate(sizeBytes),
          sizeBytes: () => file.sizeBytes(),
          sync: () => file.sync(),
          dataSync: () => file.dataSync(),
          close: () => file.close(),
        };
      };
      return files;
    },
  });
  fixture.config = { ...fixture.config, imageCompressionLevel: null };
  const manager = await fixture.attach(1);
  const timeline = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  await timeline.put(Array.from({ length: 4 * KEYS }, (_, number) => ({ key: key(number), lsn: 0x1000, value: { kind: "image" as const, bytes: page(number) } })));
  timeline.advance(0x1000, 0xff8);
  await timeline.freezeAndFlush();
  const readAll = async (numbers: readonly number[]): Promise<number> => {
    const before = reads;
    const pages = await timeline.getVectored(numbers.map(key), 0x1000, CONTEXT);
    numbers.forEach((number, i) => expect(Buffer.compare(pages[i] as Uint8Array, page(number))).toBe(0));
    return reads - before;
  };
  await readAll([0]);
  const together = await readAll(Array.from({ length: KEYS }, (_, i) => 20 + i));
  const apart = await readAll(Array.from({ length: 16 }, (_, i) => 100 + i * 9));
  // 64 pages are 512 KiB, in reads of 256 KiB; the index has a few blocks.
  expect(together).toBeLessThanOrEqual(12);
  expect(apart).toBeGreaterThanOrEqual(16);
  await manager.shutdown({ flush: false });
  await fixture.close();
});

test("a missing key names the layers that were looked into, the ancestor's too; the others of the read are answered", async () => {
  const fixture = await storageFixture();
  const manager = await fixture.attach(1);
  const root = await manager.createTimeline({ timelineId: ROOT, initdbLsn: 0x1000, pgVersion: 17 });
  await root.put([{ key: key(1), lsn: 0x1000, value: { kind: "image", bytes: page(1) } }]);
  root.advance(0x1000, 0xff8);
  await root.freezeAndFlush();
  const child = await manager.createBranch({ timelineId: CHILD, ancestorTimelineId: ROOT });
  await child.put([{ key: key(2), lsn: 0x1010, value: { kind: "image", bytes: page(2) } }]);
  child.advance(0x1010, 0x1000);
  const [one, two, none] = await child.getVectored([key(1), key(2), key(3)], 0x1010, CONTEXT);
  expect(Buffer.compare(one as Uint8Array, page(1))).toBe(0);
  expect(Buffer.compare(two as Uint8Array, page(2))).toBe(0);
  const [layer] = root.stack.map.layers();
  expect(none).toMatchObject({ kind: "not-found", code: "missing-key", details: { lsn: "0/1010", records: 0, depth: 2, visited: `in-memory 0/1010, ${layer}` } });
  await manager.shutdown({ flush: false });
  await fixture.close();
  fixture.log.assertQuiet();
});
