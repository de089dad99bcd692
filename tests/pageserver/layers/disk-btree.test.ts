import { describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { BtreeBuilder, visitBtree } from "../../../src/pageserver/layers/disk-btree.ts";

setDefaultTimeout(60_000);

function build(keySize: number, entries: readonly [Uint8Array, number][]): { blocks: Uint8Array[]; rootBlock: number } {
  const builder = new BtreeBuilder(keySize);
  for (const [key, value] of entries) builder.append(key, value);
  return builder.finish();
}

async function readFrom(tree: { blocks: Uint8Array[]; rootBlock: number }, from: Uint8Array, limit = Number.POSITIVE_INFINITY): Promise<[string, number][]> {
  const found: [string, number][] = [];
  await visitBtree({ source: (block) => tree.blocks[block], rootBlock: tree.rootBlock, from }, (key, value) => {
    found.push([key.toHex(), value]);
    return found.length < limit;
  });
  return found;
}

describe("disk B-tree", () => {
  test("a leaf has the documented bytes", () => {
    const { blocks, rootBlock } = build(6, [
      [Uint8Array.fromHex("61616161" + "0001"), 0x0102030405],
      [Uint8Array.fromHex("61616161" + "0002"), 7],
    ]);
    expect(rootBlock).toBe(0);
    // Two children, level 0, nothing compressed (only a full node is), keys of 6.
    expect(blocks[0].subarray(0, 27).toHex()).toBe("0002" + "00" + "00" + "06" + "616161610001" + "616161610002" + "0102030405" + "0000000007");
    expect(blocks[0].subarray(27).every((byte) => byte === 0)).toBe(true);
  });

  test("a full leaf is compressed to its common prefix, and a second one makes a root with marked child pointers", () => {
    const entries = Array.from({ length: 3000 }, (_, i): [Uint8Array, number] => [Uint8Array.of(9, 9, 9, 9, i >>> 8, i), i]);
    const { blocks, rootBlock } = build(6, entries);
    // The first compression cuts "09090909", and the next byte as far as the keys so far share it.
    expect(blocks[0][3]).toBeGreaterThanOrEqual(4);
    expect(blocks[0][3] + blocks[0][4]).toBe(6);
    const root = blocks[rootBlock];
    expect(root[2]).toBe(1);
    const children = (root[0] << 8) | root[1];
    const values = 5 + root[3] + children * root[4];
    expect(children).toBe(rootBlock);
    expect(root.subarray(values, values + 10).toHex()).toBe("8000000000" + "8000000001");
  });

  test("random trees answer every search like a sorted array", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 0xfffff }), { minLength: 1, maxLength: 3000, size: "max" }), fc.array(fc.integer({ min: 0, max: 0xfffff }), { maxLength: 20 }), async (numbers, searches) => {
        const sorted = [...new Set(numbers)].sort((a, b) => a - b);
        const keyOf = (n: number) => Uint8Array.fromHex(n.toString(16).padStart(52, "0"));
        const tree = build(26, sorted.map((n) => [keyOf(n), n * 1000]));
        for (const search of [...searches, sorted[0], sorted[sorted.length - 1], 0]) {
          const expected = sorted.filter((n) => n >= search).map((n): [string, number] => [keyOf(n).toHex(), n * 1000]);
          expect(await readFrom(tree, keyOf(search))).toEqual(expected);
          expect(await readFrom(tree, keyOf(search), 1)).toEqual(expected.slice(0, 1));
        }
      }),
      { numRuns: 12 },
    );
  });

  test("three levels", async () => {
    const entries = Array.from({ length: 120_000 }, (_, i): [Uint8Array, number] => {
      const key = new Uint8Array(26);
      // Scattered keys share no prefix, so nodes hold about 260.
      new DataView(key.buffer).setUint32(0, Math.imul(i, 0x01000193) >>> 0);
      new DataView(key.buffer).setUint32(20, i);
      return [key, i];
    }).sort((a, b) => Buffer.compare(a[0], b[0]));
    const tree = build(26, entries);
    expect(tree.blocks[tree.rootBlock][2]).toBe(2);
    for (let i = 0; i < entries.length; i += 997) expect(await readFrom(tree, entries[i][0], 1)).toEqual([[entries[i][0].toHex(), entries[i][1]]]);
    expect((await readFrom(tree, new Uint8Array(26))).length).toBe(entries.length);
  });

  test("damaged nodes are typed errors, never a hang or a read outside", async () => {
    const entries = Array.from({ length: 3000 }, (_, i): [Uint8Array, number] => [Uint8Array.of(0, 0, i >>> 8, i), i]);
    const tree = build(4, entries);
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.nat(8191), fc.nat(255), async (blockDraw, at, byte) => {
        const block = blockDraw % tree.blocks.length;
        const blocks = tree.blocks.map((bytes, i) => (i === block ? bytes.slice() : bytes));
        blocks[block][at] = byte;
        let visited = 0;
        const source = (wanted: number) => {
          const found = blocks[wanted];
          if (found === undefined) throw Object.assign(new Error("beyond the file"), { code: "layer-truncated" });
          return found;
        };
        try {
          await visitBtree({ source, rootBlock: tree.rootBlock, from: new Uint8Array(4) }, () => ++visited < 100_000);
        } catch (error) {
          expect(["bad-layer-index", "layer-truncated"]).toContain((error as { code: string }).code);
        }
        expect(visited).toBeLessThan(100_000);
      }),
      { numRuns: 300 },
    );
  });
});
