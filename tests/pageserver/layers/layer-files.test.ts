import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import fc from "fast-check";
import { utf8 } from "../../../src/kit/bytes.ts";
import { zstdCompress } from "../../../src/kit/zstd.ts";
import { encodeValue } from "../../../src/interpret/value-codec.ts";
import { KEY_MAX, KEY_MIN, keyFromHex } from "../../../src/keyspace/key.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { BLOB_HEADER_MAX, blobBodySize, compressedBlob, decodeBlobBody, writeBlobHeader } from "../../../src/pageserver/layers/blob.ts";
import { BlockCache } from "../../../src/pageserver/layers/block-cache.ts";
import { iterateDelta, readDelta } from "../../../src/pageserver/layers/delta-layer.ts";
import { readImages } from "../../../src/pageserver/layers/image-layer.ts";
import { LayerFile } from "../../../src/pageserver/layers/layer-file.ts";
import { isInFuture, isL0, type LayerName, layerNameToString, localLayerFileName, parseLayerName, parseLocalLayerFileName } from "../../../src/pageserver/layers/layer-name.ts";
import { DeltaLayerWriter, ImageLayerWriter, type LayerTarget } from "../../../src/pageserver/layers/layer-writer.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

const TENANT = "00112233445566778899aabbccddeeff";
const TIMELINE = "ffeeddccbbaa99887766554433221100";
const platform = realPlatform();
const key = (n: number) => ({ field1: 0, field2: 1663, field3: 5, field4: 16384, field5: 0, field6: n });

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(`${tmpdir()}/strata-layers-`);
});
afterEach(() => rm(directory, { recursive: true, force: true }));

function target(zstdLevel: number | null = null): LayerTarget {
  return { files: platform.files, directory, uniqueName: "new", tenantId: TENANT, timelineId: TIMELINE, generation: 0x1f, zstdLevel };
}

function open(path: string, name: LayerName, expectedCrc: number | null): Promise<LayerFile> {
  return LayerFile.open({ files: platform.files, path, cache: new BlockCache({ capacityBytes: 1024 * 1024 }), tenantId: TENANT, name, expectedCrc });
}

describe("names", () => {
  test("of the peer's documents", () => {
    const delta = "000000067F00000005000040010100000000-000000067F000000050000400B0000000000__0000000001696070-00000000016960E9";
    expect(layerNameToString(parseLayerName(delta))).toBe(delta);
    const image = "000000000000000000000000000000000000-FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF__00000000016B59D8";
    const parsed = parseLayerName(image);
    expect(parsed).toEqual({ kind: "image", keyRange: { start: KEY_MIN, end: KEY_MAX }, lsn: 0x16b59d8 });
    expect(localLayerFileName(parsed, 0x1f)).toBe(`${image}-v1-0000001f`);
    expect(localLayerFileName(parsed, null)).toBe(image);
    expect(parseLocalLayerFileName(`${delta}-v1-00000002`)).toEqual({ name: parseLayerName(delta), generation: 2 });
    for (const other of ["metadata", "ephemeral-1", `${image}.___temp`, `${image}-v1-0000001f.___download`, `${image}-0000001f`]) expect(parseLocalLayerFileName(other)).toBeNull();
    expect(() => parseLayerName(`${image}-0000000000000001`)).toThrow("LSN range is empty");
  });

  test("tell L0 and the future", () => {
    const l0: LayerName = { kind: "delta", keyRange: { start: KEY_MIN, end: KEY_MAX }, lsnRange: { start: 10, end: 21 } };
    expect(isL0(l0)).toBe(true);
    expect(isL0({ ...l0, keyRange: { start: KEY_MIN, end: key(1) } })).toBe(false);
    expect(isInFuture(l0, 20)).toBe(false);
    expect(isInFuture(l0, 19)).toBe(true);
  });
});

function encodeBlob(bytes: Uint8Array, level: number | null): { header: Uint8Array; body: Uint8Array } {
  const packed = compressedBlob(bytes, level);
  const body = packed ?? bytes;
  const header = new Uint8Array(BLOB_HEADER_MAX);
  return { header: header.subarray(0, writeBlobHeader(header, 0, body.length, packed !== null)), body };
}

describe("blobs", () => {
  test("have the documented headers", () => {
    expect(encodeBlob(new Uint8Array(127), null).header.toHex()).toBe("7f");
    expect(encodeBlob(new Uint8Array(128), null).header.toHex()).toBe("80000080");
    expect(encodeBlob(new Uint8Array(0x12345), null).header.toHex()).toBe("80012345");
    const packed = encodeBlob(new Uint8Array(8192), 1);
    expect(packed.header[0] & 0xf0).toBe(0x90);
    expect(packed.body).toEqual(zstdCompress(new Uint8Array(8192), 1));
  });

  test("come back", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20_000 }), fc.option(fc.integer({ min: 1, max: 3 })), (bytes, level) => {
        const { header, body } = encodeBlob(bytes, level);
        expect(blobBodySize(header, 0)).toBe(body.length);
        expect(Buffer.compare(decodeBlobBody(header[0], body), bytes)).toBe(0);
      }),
      { numRuns: 50 },
    );
    expect(() => decodeBlobBody(0xa0, new Uint8Array(1))).toThrow("unknown kind");
    expect(() => decodeBlobBody(0x90, utf8("not zstd"))).toThrow("zstd");
  });
});

/** A delta layer as the peer's documents describe it, byte by byte, without our extension. */
function peerDeltaLayer(): { bytes: Uint8Array; name: LayerName } {
  const keyHex = "000000067F00000005000040000000000001";
  const endHex = "000000067F00000005000040000000000002";
  const name = parseLayerName(`${keyHex}-${endHex}__0000000001696070-00000000016960E9`);
  const file = Buffer.alloc(3 * 8192);
  // Summary: magic, format version, tenant, timeline, key range, LSN range, index start block, index root block.
  Buffer.from(`5a61${"0003"}${TENANT}${TIMELINE}${keyHex}${endHex}${"0000000001696070"}${"00000000016960e9"}${"00000002"}${"00000000"}`, "hex").copy(file, 0);
  // One blob in block 1: length 17, then Value::Image (u32 0, u64 5, "hello").
  Buffer.from(`11${"00000000"}${"0000000000000005"}${Buffer.from("hello").toString("hex")}`, "hex").copy(file, 8192);
  // Index leaf: 1 child, level 0, prefix 0, suffix 26, key and LSN, value = offset 8192 × 2 + 1 (will_init).
  Buffer.from(`0001${"00"}${"00"}${"1a"}${keyHex}${"0000000001696070"}${"0000004001"}`, "hex").copy(file, 2 * 8192);
  return { bytes: file, name };
}

describe("layer files", () => {
  test("of the peer are read", async () => {
    const { bytes, name } = peerDeltaLayer();
    await Bun.write(`${directory}/peer`, bytes);
    const file = await open(`${directory}/peer`, name, null);
    const [found] = await readDelta(file, [{ key: keyFromHex("000000067F00000005000040000000000001"), lsnFloor: 0, lsnEnd: 0x1696071 }]);
    expect(found).toEqual([{ lsn: 0x1696070, willInit: true, bytes: Uint8Array.from(encodeValue({ kind: "image", bytes: utf8("hello") })) }]);
    expect(file.summary.checksums).toBeNull();
    await file.close();
    // With a checksum in index_part such a file is damage.
    await expect(open(`${directory}/peer`, name, 1)).rejects.toMatchObject({ code: "layer-checksum-mismatch", kind: "corrupt" });
  });

  test("of ours differ from the peer's only in unused bytes and after the index", async () => {
    const { bytes, name } = peerDeltaLayer();
    if (name.kind !== "delta") throw new Error("a delta");
    const writer = await DeltaLayerWriter.create(target());
    await writer.put({ key: name.keyRange.start, lsn: name.lsnRange.start, willInit: true, bytes: encodeValue({ kind: "image", bytes: utf8("hello") }) });
    const written = await writer.finish(name.keyRange, name.lsnRange);
    const ours = Buffer.from(await Bun.file(written.path).arrayBuffer());
    expect(ours.length).toBe(bytes.length + 3 * 4);
    ours.fill(0, 8168, 8192);
    expect(Buffer.compare(ours.subarray(0, bytes.length), bytes)).toBe(0);
    expect(written.path).toEndWith("__0000000001696070-00000000016960E9-v1-0000001f");
  });

  test("deltas give back what was put, newest first down to the first that needs no more", async () => {
    const writer = await DeltaLayerWriter.create(target());
    const value = (n: number, lsn: number) => utf8(`${n}@${lsn} `.repeat(1 + ((n * 7 + lsn) % 900)));
    for (let n = 0; n < 300; n++) {
      for (let lsn = 100; lsn < 140; lsn += 10) await writer.put({ key: key(n), lsn, willInit: lsn === 110, bytes: value(n, lsn) });
    }
    const written = await writer.finish({ start: key(0), end: key(300) }, { start: 100, end: 140 });
    const file = await open(written.path, written.name, written.crc);
    await file.verify();
    const found = await readDelta(file, [7, 299, 300].map((n) => ({ key: key(n), lsnFloor: 100, lsnEnd: 121 })));
    expect(found.map((list) => list.map(({ lsn }) => lsn))).toEqual([[120, 110], [120, 110], []]);
    expect(Buffer.compare(found[1][0].bytes, value(299, 120))).toBe(0);
    let count = 0;
    for await (const chunk of iterateDelta(file)) {
      for (const entry of chunk) expect(Buffer.compare(entry.bytes, value(entry.key.field6, entry.lsn))).toBe(0);
      count += chunk.length;
    }
    expect(count).toBe(1200);
    await file.close();
  });

  test("images give back pages, compressed or not, over block borders", async () => {
    for (const level of [null, 1]) {
      const writer = await ImageLayerWriter.create(target(level));
      const page = (n: number) => Uint8Array.from({ length: 8192 }, (_, i) => (n % 2 === 0 ? (i * n) & 0xff : Math.imul(i + n, 0x9e3779b1) >>> 24));
      for (let n = 0; n < 200; n += 2) await writer.put(key(n), page(n));
      const written = await writer.finish({ start: key(0), end: key(500) }, 0x777);
      const file = await open(written.path, written.name, written.crc);
      const images = await readImages(file, [0, 1, 2, 100, 198, 199].map(key));
      expect(images.map((image) => image !== undefined)).toEqual([true, false, true, true, true, false]);
      expect(Buffer.compare(images[3] as Uint8Array, page(100))).toBe(0);
      await file.close();
    }
  });

  test("any flipped bit is a typed error at the read, and a cut file is too", async () => {
    const writer = await DeltaLayerWriter.create(target());
    for (let n = 0; n < 40; n++) await writer.put({ key: key(n), lsn: 100, willInit: true, bytes: new Uint8Array(500).fill(n) });
    const written = await writer.finish({ start: key(0), end: key(40) }, { start: 100, end: 101 });
    const good = new Uint8Array(await Bun.file(written.path).arrayBuffer());
    const readAll = async () => {
      const file = await open(written.path, written.name, written.crc);
      try {
        await file.verify();
        const found = await readDelta(file, Array.from({ length: 40 }, (_, n) => ({ key: key(n), lsnFloor: 0, lsnEnd: 101 })));
        for (let n = 0; n < 40; n++) expect(found[n][0].bytes.every((byte) => byte === n)).toBe(true);
      } finally {
        await file.close();
      }
    };
    await readAll();
    // Every 61st byte here (prime, so all alignments); every byte of a store is in the bit-flip verification.
    for (let at = 0; at < good.length; at += 61) {
      const bad = good.slice();
      bad[at] ^= 1 << (at % 8);
      await Bun.write(written.path, bad);
      await expect(readAll()).rejects.toMatchObject({ kind: "corrupt" });
    }
    for (const length of [0, 100, 8192, good.length - 1]) {
      await Bun.write(written.path, good.subarray(0, length));
      await expect(readAll()).rejects.toMatchObject({ code: "layer-truncated", kind: "corrupt" });
    }
  });
});
