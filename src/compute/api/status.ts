/** What `GET /v1/compute/status` answers. */
import { z } from "zod";

export const computeStatusSchema = z.object({
  status: z.enum(["init", "running", "stopping", "stopped", "failed"]),
  /** The step of the start that is under way. */
  step: z.string().nullable(),
  error: z.string().nullable(),
  tenant: z.string(),
  timeline: z.string(),
  proposer: z.object({
    term: z.number(),
    elected: z.boolean(),
    commit_lsn: z.string(),
    flush_lsn: z.string(),
    truncate_lsn: z.string(),
    /** Null until it has said something. */
    pageserver: z.object({
      last_received_lsn: z.string(),
      disk_consistent_lsn: z.string(),
      remote_consistent_lsn: z.string(),
      current_timeline_size: z.number().nullable(),
    }).nullable(),
    /** Commits wait for the pageserver now. */
    throttled: z.boolean(),
    safekeepers: z.array(z.object({ address: z.string(), state: z.string(), flush_lsn: z.string() })),
  }).nullable(),
  /** Null without one. */
  size_quota: z.object({ state: z.enum(["ok", "near", "exceeded"]), limit: z.number() }).nullable(),
});

export type ComputeStatus = z.infer<typeof computeStatusSchema>;
