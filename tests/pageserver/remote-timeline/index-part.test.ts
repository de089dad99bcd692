import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { utf8, utf8ToString } from "../../../src/kit/bytes.ts";
import { crc32c } from "../../../src/kit/crc32c.ts";
import { decodeIndexPart, encodeIndexPart, indexTime } from "../../../src/pageserver/remote-timeline/index-part.ts";

const LAYER = "000000000000000000000000000000000000-FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF__0000000001696070-00000000016960E9";
const IMAGE = "000000000000000000000000000000000000-000000067F00000005000040000000000000__00000000016B59D8";

function document(fields: Record<string, unknown> = {}): Uint8Array {
  return utf8(
    JSON.stringify({
      version: 10,
      layer_metadata: { [LAYER]: { file_size: 25600000 }, [IMAGE]: { file_size: 9007199254740991, generation: 7, shard: "0204" } },
      disk_consistent_lsn: "0/16960E8",
      metadata: { disk_consistent_lsn: "0/16960E8", prev_record_lsn: "0/1696070", ancestor_timeline: "e45a7f37d3ee2ff17dc14bf4f4e3f52e", ancestor_lsn: "0/1690000", latest_gc_cutoff_lsn: "0/1696070", initdb_lsn: "0/1696070", pg_version: 14 },
      lineage: { original_ancestor: ["e2bfd8c633d713d279e6fcd2bcc15b6d", "0/15A7618", "2024-05-07T18:52:36.322426563"] },
      gc_blocking: { started_at: "2024-07-19T09:00:00.123", reasons: ["DetachAncestor"] },
      ...fields,
    }),
  );
}

/** The old binary metadata of the peer: header, body, zeros to 512 bytes. */
function oldMetadata(format: 3 | 4): number[] {
  const body = `${"00000000016960e8"}01${"0000000001696070"}00${"0000000000000000"}${"0000000001696070"}${"0000000001696070"}${format === 4 ? "0000000e" : ""}`;
  const bytes = Buffer.alloc(512);
  Buffer.from(body, "hex").copy(bytes, 8);
  const size = 8 + body.length / 2;
  bytes.writeUInt32BE(crc32c(bytes, 8, size), 0);
  bytes.writeUInt16BE(size, 4);
  bytes.writeUInt16BE(format, 6);
  return [...bytes];
}

describe("index_part.json", () => {
  test("of the peer is read", () => {
    const index = decodeIndexPart(document());
    expect(index.metadata).toEqual({ diskConsistentLsn: 0x16960e8, prevRecordLsn: 0x1696070, ancestor: { timelineId: "e45a7f37d3ee2ff17dc14bf4f4e3f52e", lsn: 0x1690000 }, latestGcCutoffLsn: 0x1696070, initdbLsn: 0x1696070, pgVersion: 14 });
    expect(index.layers.get(LAYER)?.metadata).toEqual({ sizeBytes: 25600000, generation: null, shard: { number: 0, count: 0 }, crc: null });
    expect(index.layers.get(IMAGE)?.metadata).toEqual({ sizeBytes: Number.MAX_SAFE_INTEGER, generation: 7, shard: { number: 2, count: 4 }, crc: null });
    expect(index.deletedAt).toBeNull();
  });

  test("old binary metadata is read, damaged is refused", () => {
    for (const format of [3, 4] as const) {
      const bytes = oldMetadata(format);
      const read = () => decodeIndexPart(document({ metadata: undefined, metadata_bytes: bytes })).metadata;
      expect(read()).toEqual({ diskConsistentLsn: 0x16960e8, prevRecordLsn: 0x1696070, ancestor: null, latestGcCutoffLsn: 0x1696070, initdbLsn: 0x1696070, pgVersion: 14 });
      bytes[20] ^= 1;
      expect(read).toThrow("checksum");
    }
  });

  test("comes back as it was, with fields we do not know", () => {
    const index = decodeIndexPart(document({ deleted_at: "2023-07-31T09:00:00.123", import_pgdata: { V1: { Done: {} } }, later_field: 1 }));
    const again = decodeIndexPart(encodeIndexPart(index));
    expect(again).toEqual(index);
    const json = JSON.parse(utf8ToString(encodeIndexPart(index))) as Record<string, unknown>;
    expect(json.later_field).toBe(1);
    expect(json.version).toBe(10);
    expect(json.deleted_at).toBe("2023-07-31T09:00:00.123");
    expect((json.layer_metadata as Record<string, unknown>)[IMAGE]).toEqual({ file_size: 9007199254740991, generation: 7, shard: "0204" });
  });

  test("carries our checksum of a layer", () => {
    const index = decodeIndexPart(document({ layer_metadata: { [LAYER]: { file_size: 1, generation: 1, strata_crc: "0000beef" } } }));
    expect(index.layers.get(LAYER)?.metadata.crc).toBe(0xbeef);
    expect(utf8ToString(encodeIndexPart(index))).toContain('"strata_crc":"0000beef"');
  });

  test("malformed ones are typed errors", () => {
    expect(() => decodeIndexPart(document({ version: 16 }))).toThrow(expect.objectContaining({ code: "index-part-too-new", kind: "fix-input" }));
    const bad: Record<string, unknown>[] = [{ version: "x" }, { layer_metadata: [] }, { layer_metadata: { nonsense: { file_size: 1 } } }, { layer_metadata: { [LAYER]: { file_size: -1 } } }, { layer_metadata: { [LAYER]: { file_size: 1, strata_crc: 3 } } }, { metadata: null }, { metadata: [1, 2] }, { deleted_at: 5 }];
    for (const fields of bad) expect(() => decodeIndexPart(document(fields))).toThrow(expect.objectContaining({ code: "bad-index-part", kind: "corrupt" }));
    fc.assert(
      fc.property(fc.nat(), fc.nat(255), (at, byte) => {
        const bytes = document();
        bytes[at % bytes.length] = byte;
        try {
          decodeIndexPart(bytes);
        } catch (error) {
          expect(["bad-index-part", "index-part-too-new"]).toContain((error as { code: string }).code);
        }
      }),
      { numRuns: 500 },
    );
  });

  test("times are UTC without a zone", () => {
    expect(indexTime(Date.UTC(2024, 6, 19, 9, 0, 0, 123))).toBe("2024-07-19T09:00:00.123");
  });
});
