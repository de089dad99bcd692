/**
 * Every key in use at an LSN. What is not listed may be left out of new image layers and dropped by GC.
 *
 * Source: the peer's pageserver pgdatadir_mapping module (collect_keyspace).
 */
import { KeySpaceBuilder, type TimelineKeySpace } from "../../keyspace/keyspace.ts";
import {
  AUX_FILE_RANGE, CHECKPOINT_KEY, CONTROL_FILE_KEY, DB_DIRECTORY_KEY, relBlockKey, relDirectoryKey, relmapFileKey, relSizeKey,
  REPL_ORIGIN_RANGE, slruBlockKey, slruDirectoryKey, slruSegmentSizeKey, TWO_PHASE_DIRECTORY_KEY, twoPhaseFileKey,
} from "../../keyspace/mapping.ts";
import { SLRU_KINDS } from "../../keyspace/relation.ts";
import type { DatadirReader } from "./datadir-reader.ts";

/** @param isShardZero SLRUs live on shard 0 only */
export async function keySpaceAt(reader: DatadirReader, isShardZero: boolean): Promise<TimelineKeySpace> {
  const builder = new KeySpaceBuilder().addKey(DB_DIRECTORY_KEY);
  await addDatabases(builder, reader);
  if (isShardZero) await addSlrus(builder, reader);
  builder.addKey(TWO_PHASE_DIRECTORY_KEY);
  for (const xid of await reader.listTwoPhaseXids()) builder.addKey(twoPhaseFileKey(xid));
  builder.addKey(CONTROL_FILE_KEY).addKey(CHECKPOINT_KEY);
  return { dense: builder.build(), sparse: { ranges: [AUX_FILE_RANGE, REPL_ORIGIN_RANGE] } };
}

async function addDatabases(builder: KeySpaceBuilder, reader: DatadirReader): Promise<void> {
  const databases = [...(await reader.listDatabases()).values()].sort((a, b) => a.spcOid - b.spcOid || a.dbOid - b.dbOid);
  for (const { spcOid, dbOid, hasRelmap } of databases) {
    if (hasRelmap) builder.addKey(relmapFileKey(spcOid, dbOid));
    builder.addKey(relDirectoryKey(spcOid, dbOid));
    const rels = await reader.listRels(spcOid, dbOid);
    const sizes = await reader.relSizes(rels);
    rels.forEach((rel, index) => {
      builder.addRange({ start: relBlockKey(rel, 0), end: relBlockKey(rel, sizes[index]) });
      builder.addKey(relSizeKey(rel));
    });
  }
}

async function addSlrus(builder: KeySpaceBuilder, reader: DatadirReader): Promise<void> {
  // In the order of their key numbers.
  for (const kind of SLRU_KINDS) {
    const segments = await reader.slruDirectory(kind);
    if (segments === null) continue;
    builder.addKey(slruDirectoryKey(kind));
    for (const segment of [...segments].sort((a, b) => a - b)) {
      const blocks = await reader.slruSegmentBlocks(kind, segment);
      builder.addRange({ start: slruBlockKey(kind, segment, 0), end: slruBlockKey(kind, segment, blocks) });
      builder.addKey(slruSegmentSizeKey(kind, segment));
    }
  }
}
