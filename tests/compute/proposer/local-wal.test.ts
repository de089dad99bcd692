import { afterEach, describe, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LocalWal } from "../../../src/compute/proposer/local-wal.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";

const SEGMENT = 1024 * 1024;
const directories: string[] = [];
afterEach(async () => {
  for (const directory of directories.splice(0)) await rm(directory, { recursive: true, force: true });
});

/** A segment whose pages carry their addresses, every other byte made from its place. */
function segmentBytes(start: number): Uint8Array {
  const bytes = Uint8Array.from({ length: SEGMENT }, (_, at) => (start + at) % 251);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < SEGMENT; at += 8192) view.setBigUint64(at + 8, BigInt(start + at), true);
  return bytes;
}

async function rig(bufferMaxBytes: number) {
  const walDirectory = await mkdtemp(join(tmpdir(), "strata-local-wal-"));
  directories.push(walDirectory);
  const startLsn = 2 * SEGMENT + 100;
  const wal = new LocalWal({ files: realPlatform().files, walDirectory, segmentSizeBytes: SEGMENT, startLsn, bufferMaxBytes });
  return { wal, walDirectory, startLsn };
}

describe("local WAL", () => {
  test("the newest comes from memory, older from the segment file, both the same bytes", async () => {
    const { wal, walDirectory, startLsn } = await rig(50_000);
    const content = segmentBytes(2 * SEGMENT);
    await writeFile(join(walDirectory, "000000010000000000000002"), content);
    for (let at = 100; at < 400_100; at += 10_000) wal.append(2 * SEGMENT + at, content.slice(at, at + 10_000));
    expect(wal.endLsn).toBe(startLsn + 400_000);
    for (let lsn = startLsn; lsn < wal.endLsn; ) {
      const bytes = await wal.read(lsn, 30_000);
      if (bytes === null) throw new Error(`nothing at ${lsn}`);
      expect(bytes.length).toBeGreaterThan(0);
      expect(Buffer.compare(bytes, content.subarray(lsn - 2 * SEGMENT, lsn - 2 * SEGMENT + bytes.length))).toBe(0);
      lsn += bytes.length;
    }
  });

  test("what is not there is null: before the start, behind the end, removed or recycled segments", async () => {
    const { wal, walDirectory, startLsn } = await rig(1_000);
    for (let at = 0; at < 20; at++) wal.append(startLsn + at * 1_000, new Uint8Array(1_000));
    expect(await wal.read(startLsn - 1, 10)).toBeNull();
    expect(await wal.read(wal.endLsn, 10)).toBeNull();
    expect(await wal.read(startLsn, 10)).toBeNull();
    await writeFile(join(walDirectory, "000000010000000000000002"), segmentBytes(7 * SEGMENT));
    expect(await wal.read(startLsn, 10)).toBeNull();
    expect((await wal.read(wal.endLsn - 10, 100))?.length).toBe(10);
  });

  test("small pieces come back as one; what was read before stays as it was", async () => {
    const { wal, startLsn } = await rig(64 * 1024);
    const content = segmentBytes(2 * SEGMENT);
    const views: { readonly lsn: number; readonly bytes: Uint8Array }[] = [];
    const receiveBuffer = new Uint8Array(300);
    for (let at = 100; at < 300_000; at += 300) {
      // The receive buffer is used again for the next piece.
      receiveBuffer.set(content.subarray(at, at + 300));
      wal.append(2 * SEGMENT + at, receiveBuffer);
      const bytes = wal.buffered(2 * SEGMENT + at, 1_000);
      if (bytes === null) throw new Error(`nothing at ${at}`);
      views.push({ lsn: 2 * SEGMENT + at, bytes });
    }
    expect(wal.buffered(wal.endLsn - 900, 100_000)?.length).toBe(900);
    expect(wal.buffered(startLsn, 10)).toBeNull();
    expect(wal.buffered(wal.endLsn, 10)).toBeNull();
    for (const { lsn, bytes } of views) expect(Buffer.compare(bytes, content.subarray(lsn - 2 * SEGMENT, lsn - 2 * SEGMENT + 300))).toBe(0);
  });

  test("a gap is refused", async () => {
    const { wal, startLsn } = await rig(1_000);
    expect(() => wal.append(startLsn + 1, new Uint8Array(1))).toThrow(/was next/);
  });
});
