/** A tenant's synthetic size in the HTTP API: the peer's JSON. */
import { z } from "zod";

const sizePointSchema = z.object({
  segment: z.object({ parent: z.number().nullable(), lsn: z.number(), size: z.number().nullable(), needed: z.boolean() }),
  timeline_id: z.string(),
  kind: z.enum(["BranchStart", "BranchPoint", "GcCutOff", "BranchEnd", "LeasePoint", "LeaseStart", "LeaseEnd"]),
});

const timelineSizeInputsSchema = z.object({
  timeline_id: z.string(),
  ancestor_id: z.string().nullable(),
  ancestor_lsn: z.string(),
  last_record: z.string(),
  latest_gc_cutoff: z.string(),
  next_pitr_cutoff: z.string(),
  retention_param_cutoff: z.string().nullable(),
  lease_points: z.array(z.string()),
});

export const syntheticSizeSchema = z.object({
  id: z.string(),
  /** Bytes; null when only the inputs were asked for, as are the segments' sizes. */
  size: z.number().nullable(),
  segment_sizes: z.array(z.object({ method: z.enum(["SnapshotHere", "Wal", "Skipped"]), accum_size: z.number() })).nullable(),
  inputs: z.object({ segments: z.array(sizePointSchema), timeline_inputs: z.array(timelineSizeInputsSchema) }),
});
