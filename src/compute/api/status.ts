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
    safekeepers: z.array(z.object({ address: z.string(), state: z.string(), flush_lsn: z.string() })),
  }).nullable(),
});

export type ComputeStatus = z.infer<typeof computeStatusSchema>;
