import { describe, expect, test } from "bun:test";
import { auxFileKey, decodeAuxFiles, encodeAuxFiles, updateAuxFiles } from "../../src/keyspace/aux-file.ts";
import { keyToHex } from "../../src/keyspace/key.ts";
import { keySpaceContains, keySpaceFromRanges, rangeKeyCount, subtractKeySpace } from "../../src/keyspace/keyspace.ts";
import { keyToRelBlock, keyToSlruBlock, relBlockKey, relRange, relSizeKey, slruBlockKey, twoPhaseFileKey } from "../../src/keyspace/mapping.ts";
import { isKeyLocal, keyToShardNumber, DEFAULT_STRIPE_BLOCKS } from "../../src/keyspace/shard.ts";
import { utf8 } from "../../src/kit/bytes.ts";

const rel = { spcOid: 1663, dbOid: 5, relNumber: 0x400c, fork: 0 };

describe("mapping", () => {
  test("relation keys", () => {
    expect(keyToHex(relBlockKey(rel, 0x7d06))).toBe("000000067F000000050000400C0000007D06");
    expect(keyToHex(relSizeKey(rel))).toBe("000000067F000000050000400C00FFFFFFFF");
    expect(keyToRelBlock(relBlockKey(rel, 7))).toEqual({ rel, block: 7 });
    expect(() => keyToRelBlock(relSizeKey(rel))).toThrow("is not that of a relation page");
    expect(rangeKeyCount(relRange(rel))).toBe(0xffffffff);
    expect(rangeKeyCount({ start: relBlockKey(rel, 3), end: relBlockKey(rel, 10) })).toBe(7);
  });

  test("SLRU and two-phase keys", () => {
    expect(keyToHex(slruBlockKey("multixact-offsets", 3, 4))).toBe("010000000200000001000000030000000004");
    expect(keyToSlruBlock(slruBlockKey("clog", 1, 2))).toEqual({ kind: "clog", segment: 1, block: 2 });
    expect(keyToHex(slruBlockKey("commit-ts", 3, 4))).toBe("010000000300000001000000030000000004");
    expect(keyToSlruBlock(slruBlockKey("commit-ts", 3, 4))).toEqual({ kind: "commit-ts", segment: 3, block: 4 });
    expect(keyToHex(twoPhaseFileKey(0x0102030405060708n))).toBe("020000000000000000000102030405060708");
  });

  test("aux file keys equal the peer's", () => {
    expect(keyToHex(auxFileKey("pg_logical/mappings/test1"))).toBe("62000001017F8B83D94F7081693471ABF91C");
    expect(keyToHex(auxFileKey("pg_logical/snapshots/test2"))).toBe("62000001027F8E83D94F7081693471ABFCCD");
    expect(keyToHex(auxFileKey("pg_logical/replorigin_checkpoint"))).toBe("62000001032E07BB014262B821756295C58D");
    expect(keyToHex(auxFileKey("pg_logical/unsupported"))).toBe("62000001FF4F38E1C74754E7D03C1A660178");
    expect(keyToHex(auxFileKey("pg_replslot/test3"))).toBe("62000002017F8D83D94F7081693471ABFB92");
    expect(keyToHex(auxFileKey("other_file_not_supported"))).toBe("620000FFFF2B6ECC8AEF93F643DC44F15E03");
  });

  test("aux file values", () => {
    const one = updateAuxFiles(new Uint8Array(0), "a", utf8("1"));
    const two = updateAuxFiles(one, "b", utf8("22"));
    expect(decodeAuxFiles(two).map((file) => [file.path, file.content.length])).toEqual([["a", 1], ["b", 2]]);
    expect(updateAuxFiles(one, "a", new Uint8Array(0)).length).toBe(0);
    expect(() => decodeAuxFiles(encodeAuxFiles([{ path: "a", content: utf8("1") }]).subarray(0, 8))).toThrow("bytes wanted");
  });
});

describe("keyspace", () => {
  test("merge, contain, subtract", () => {
    const space = keySpaceFromRanges([
      { start: relBlockKey(rel, 10), end: relBlockKey(rel, 20) },
      { start: relBlockKey(rel, 0), end: relBlockKey(rel, 12) },
      { start: relBlockKey(rel, 30), end: relBlockKey(rel, 31) },
    ]);
    expect(space.ranges.length).toBe(2);
    expect(keySpaceContains(space, relBlockKey(rel, 19))).toBe(true);
    expect(keySpaceContains(space, relBlockKey(rel, 20))).toBe(false);
    const rest = subtractKeySpace(space, keySpaceFromRanges([{ start: relBlockKey(rel, 5), end: relBlockKey(rel, 30) }]));
    expect(rest.ranges.map((r) => [r.start.field6, r.end.field6])).toEqual([[0, 5], [30, 31]]);
  });
});

describe("shard", () => {
  test("the hash equals the peer's example", () => {
    expect(keyToShardNumber({ field1: 0, field2: 0x67f, field3: 5, field4: 0x400c, field5: 0, field6: 0x7d06 }, { count: 10, stripeBlocks: DEFAULT_STRIPE_BLOCKS })).toBe(8);
  });
  test("each key is local to exactly one shard", () => {
    for (let block = 0; block < 500; block++) {
      const holders = [0, 1, 2, 3].filter((number) => isKeyLocal(relBlockKey(rel, block), { number, count: 4, stripeBlocks: 8 }));
      expect(holders.length).toBe(1);
    }
  });
});
