/** Layers and keys of a timeline in the pageserver's HTTP API: the peer's JSON, field for field. */
import { z } from "zod";

const lsn = z.string();
const bytes = z.number().int().nonnegative();
/** Wall-clock milliseconds since 1970. */
const wallMs = z.number();

const accessStatsSchema = z.object({
  /** Of the last read. */
  access_time: wallMs,
  /** Of its becoming resident here, or ceasing to be. */
  residence_time: wallMs,
  /** Whether a read at the latest LSN, of a branch or under a lease may still come to it. */
  visible: z.boolean(),
});

const fileFields = { layer_file_name: z.string(), layer_file_size: bytes, lsn_start: lsn, remote: z.boolean(), access_stats: accessStatsSchema };

export const historicLayerSchema = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("Delta"), ...fileFields, lsn_end: lsn, l0: z.boolean() }),
  z.object({ kind: z.literal("Image"), ...fileFields }),
]);
export type HistoricLayerInfo = z.infer<typeof historicLayerSchema>;

export const inMemoryLayerSchema = z.discriminatedUnion("kind", [z.object({ kind: z.literal("Open"), lsn_start: lsn }), z.object({ kind: z.literal("Frozen"), lsn_start: lsn, lsn_end: lsn })]);
export type InMemoryLayerInfo = z.infer<typeof inMemoryLayerSchema>;

export const layerMapSchema = z.object({ in_memory_layers: z.array(inMemoryLayerSchema), historic_layers: z.array(historicLayerSchema) });
export type LayerMapInfo = z.infer<typeof layerMapSchema>;

/** Half-open; keys of 36 hexadecimal digits. */
const keyRangeSchema = z.tuple([z.string(), z.string()]);

export const keySpaceSchema = z.object({ keys: z.array(keyRangeSchema), sparse_keys: z.array(keyRangeSchema), at_lsn: lsn });
export type KeySpaceInfo = z.infer<typeof keySpaceSchema>;
