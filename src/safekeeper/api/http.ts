/**
 * The safekeeper's HTTP interface as others know it: bodies and replies, as the peer writes them
 * (libs/safekeeper_api/src/models.rs, safekeeper/src/debug_dump.rs). LSNs are text, ids hex, field names snake case.
 */
import { z } from "@hono/zod-openapi";
import { tenantIdText, timelineIdText, lsnText } from "../../http/params.ts";
import { checkConfiguration, type Configuration } from "./membership.ts";

const lsnOut = z.string().openapi({ description: "log sequence number", example: "0/16B3748" });
const term = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
/** A u64 in full: JSON numbers of that size survive no JavaScript parser, so text is taken as well. */
const systemIdIn = z.union([z.number().int().min(0), z.string().regex(/^\d{1,20}$/)]);

export const memberSchema = z.object({ id: z.number().int().min(0), host: z.string().max(255), pg_port: z.number().int().min(0).max(65535) });
export const configurationSchema = z.object({
  generation: z.number().int().min(0).max(0xffffffff),
  members: z.array(memberSchema),
  new_members: z.array(memberSchema).nullish(),
});

type ConfigurationJson = z.output<typeof configurationSchema>;

/** @throws StrataError fix-input `bad-configuration` */
export function configurationFromJson(json: ConfigurationJson): Configuration {
  const members = (set: ConfigurationJson["members"]) => set.map(({ id, host, pg_port }) => ({ nodeId: id, host, pgPort: pg_port }));
  return checkConfiguration({ generation: json.generation, members: members(json.members), newMembers: json.new_members == null ? null : members(json.new_members) });
}

export function configurationToJson(configuration: Configuration): ConfigurationJson {
  const members = (set: Configuration["members"]) => set.map(({ nodeId, host, pgPort }) => ({ id: nodeId, host, pg_port: pgPort }));
  return { generation: configuration.generation, members: members(configuration.members), new_members: configuration.newMembers === null ? null : members(configuration.newMembers) };
}

export const statusSchema = z.object({ id: z.number() });
export const utilizationSchema = z.object({ timeline_count: z.number() });
export const timelineRefSchema = z.object({ tenant_id: z.string(), timeline_id: z.string() });

export const timelineCreateSchema = z.object({
  tenant_id: tenantIdText,
  timeline_id: timelineIdText,
  mconf: configurationSchema.optional(),
  /** PG_VERSION_NUM. */
  pg_version: z.number().int(),
  system_id: systemIdIn.nullish(),
  wal_seg_size: z.number().int().nullish(),
  start_lsn: lsnText,
  /** Above start_lsn only when WAL was put there by hand. */
  commit_lsn: lsnText.nullish(),
});

export const membershipRequestSchema = configurationSchema;
export const membershipReplySchema = z.object({ previous_conf: configurationSchema, current_conf: configurationSchema, last_log_term: term, flush_lsn: lsnOut });
export const termBumpRequestSchema = z.object({ term: term.nullish() });
export const termBumpReplySchema = z.object({ previous_term: term, current_term: term });
export const deleteReplySchema = z.object({ dir_existed: z.boolean() });
export const digestReplySchema = z.object({ sha256: z.string() });

const termSwitch = z.object({ term, lsn: lsnOut });
const hotStandbySchema = z.object({ ts: z.number(), xmin: z.number(), catalog_xmin: z.number() });
const feedbackSchema = z.union([
  z.object({ Pageserver: z.object({ current_timeline_size: z.number(), last_received_lsn: lsnOut, disk_consistent_lsn: lsnOut, remote_consistent_lsn: lsnOut, replytime: z.string(), shard_number: z.number(), corruption_detected: z.boolean() }) }),
  z.object({ Standby: z.object({ reply: z.object({ write_lsn: lsnOut, flush_lsn: lsnOut, apply_lsn: lsnOut, reply_ts: z.number(), reply_requested: z.boolean() }), hs_feedback: hotStandbySchema }) }),
]);
export const walSenderSchema = z.object({
  Vanilla: z.object({ ttid: timelineRefSchema, addr: z.string(), conn_id: z.number(), appname: z.string().nullable(), feedback: feedbackSchema }),
});
export const walReceiverSchema = z.object({ conn_id: z.number().nullable(), status: z.enum(["Voting", "Streaming"]) });
const peerSchema = z.object({
  sk_id: z.number(), term, last_log_term: term, flush_lsn: lsnOut, commit_lsn: lsnOut, local_start_lsn: lsnOut,
  pg_connstr: z.string(), http_connstr: z.string(), https_connstr: z.string().nullable(),
});

export const timelineStatusSchema = z.object({
  tenant_id: z.string(),
  timeline_id: z.string(),
  mconf: configurationSchema,
  /** Ours: no votes until an elected proposer has brought everything. */
  recovering: z.boolean().default(false),
  /** Ours: of how many safekeepers the last elected proposer makes its majorities; 0 = it did not say. */
  safekeeper_count: z.number().int().min(0).default(0),
  acceptor_state: z.object({ term, epoch: term, term_history: z.array(termSwitch) }),
  pg_info: z.object({ pg_version: z.number(), system_id: z.number(), wal_seg_size: z.number() }),
  flush_lsn: lsnOut,
  timeline_start_lsn: lsnOut,
  local_start_lsn: lsnOut,
  commit_lsn: lsnOut,
  backup_lsn: lsnOut,
  peer_horizon_lsn: lsnOut,
  remote_consistent_lsn: lsnOut,
  peers: z.array(peerSchema),
  walsenders: z.array(walSenderSchema),
  walreceivers: z.array(walReceiverSchema),
});

export type TimelineCreateRequest = z.input<typeof timelineCreateSchema>;
export type TimelineStatusReply = z.output<typeof timelineStatusSchema>;

export const peerInfoSchema = z.object({
  term: term.nullish(), last_log_term: term.nullish(),
  flush_lsn: lsnText.optional(), commit_lsn: lsnText.optional(), backup_lsn: lsnText.optional(), remote_consistent_lsn: lsnText.optional(),
  peer_horizon_lsn: lsnText.optional(), local_start_lsn: lsnText.optional(), standby_horizon: lsnText.optional(),
  safekeeper_connstr: z.string().nullish(), http_connstr: z.string().nullish(), https_connstr: z.string().nullish(),
});

export const pullTimelineSchema = z.object({
  tenant_id: tenantIdText,
  timeline_id: timelineIdText,
  http_hosts: z.array(z.url({ protocol: /^https?$/ })).min(1).max(32),
  /** To switch to when the copy is here. */
  mconf: configurationSchema.nullish(),
});
export const pullReplySchema = z.object({ safekeeper_host: z.string().nullable() });
