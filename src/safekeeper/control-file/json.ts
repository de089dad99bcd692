/**
 * The content of a control file as JSON, in the peer's words: printed by `--dump-control-file` and the debug dump, and
 * changed field by field by an operator's hand (`PATCH …/control_file`).
 * Source: the peer safekeeper/src/state.rs, patch_control_file.rs.
 */
import { z } from "zod";
import { StrataError } from "../../kit/errors.ts";
import { lsnToString } from "../../kit/lsn.ts";
import { lsnText } from "../../http/params.ts";
import { configurationFromJson, configurationSchema, configurationToJson } from "../api/http.ts";
import { checkTermHistory } from "../api/term-history.ts";
import type { TimelinePersistentState, UploadStatus } from "./state.ts";

/** Not in the compiler's library yet. */
const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown };
const STATUS_WORDS: Readonly<Record<UploadStatus, string>> = { "in-progress": "InProgress", uploaded: "Uploaded", deleting: "Deleting" };

/** A u64 printed in full. The type is what a reader that parses numbers as doubles will see. */
export function u64Json(value: bigint): number {
  return rawJSON(value.toString()) as number;
}

export function presentState(state: TimelinePersistentState): Record<string, unknown> {
  return {
    tenant_id: state.tenantId,
    timeline_id: state.timelineId,
    mconf: configurationToJson(state.configuration),
    acceptor_state: { term: state.term, term_history: state.termHistory.map((entry) => ({ term: entry.term, lsn: lsnToString(entry.lsn) })) },
    server: { pg_version: state.pgVersion, system_id: u64Json(state.systemId), wal_seg_size: state.walSegmentSizeBytes },
    proposer_uuid: state.proposerUuid,
    timeline_start_lsn: lsnToString(state.timelineStartLsn),
    local_start_lsn: lsnToString(state.localStartLsn),
    commit_lsn: lsnToString(state.commitLsn),
    backup_lsn: lsnToString(state.backupLsn),
    peer_horizon_lsn: lsnToString(state.peerHorizonLsn),
    remote_consistent_lsn: lsnToString(state.remoteConsistentLsn),
    partial_backup: {
      segments: state.partialBackup.map(({ status, name, commitLsn, flushLsn, term }) => ({ status: STATUS_WORDS[status], name, commit_lsn: lsnToString(commitLsn), flush_lsn: lsnToString(flushLsn), term })),
    },
    eviction_state: state.evictionState.kind === "present" ? "Present" : { Offloaded: lsnToString(state.evictionState.flushLsn) },
    recovering: state.recovering,
    safekeeper_count: state.safekeeperCount,
    creation_ts: { secs_since_epoch: Math.floor(state.createdMs / 1000), nanos_since_epoch: Math.floor(state.createdMs % 1000) * 1_000_000 },
  };
}

const term = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const status = z.enum(["InProgress", "Uploaded", "Deleting"]);
/** Of one folder: objects of others are nobody's business here. */
const OBJECT_NAME = /^[\w-][\w.-]*$/;
const FIELDS = {
  mconf: configurationSchema.transform((json) => ({ configuration: configurationFromJson(json) })),
  acceptor_state: z.object({ term, term_history: z.array(z.object({ term, lsn: lsnText })) }).transform((said) => ({ term: said.term, termHistory: checkTermHistory(said.term_history) })),
  timeline_start_lsn: lsnText.transform((timelineStartLsn) => ({ timelineStartLsn })),
  local_start_lsn: lsnText.transform((localStartLsn) => ({ localStartLsn })),
  commit_lsn: lsnText.transform((commitLsn) => ({ commitLsn })),
  backup_lsn: lsnText.transform((backupLsn) => ({ backupLsn })),
  peer_horizon_lsn: lsnText.transform((peerHorizonLsn) => ({ peerHorizonLsn })),
  remote_consistent_lsn: lsnText.transform((remoteConsistentLsn) => ({ remoteConsistentLsn })),
  partial_backup: z
    .object({ segments: z.array(z.object({ status, name: z.string().max(500).regex(OBJECT_NAME), commit_lsn: lsnText, flush_lsn: lsnText, term })).max(1000) })
    .transform(({ segments }) => ({ partialBackup: segments.map((segment) => ({ status: statusOf(segment.status), name: segment.name, commitLsn: segment.commit_lsn, flushLsn: segment.flush_lsn, term: segment.term })) })),
  recovering: z.boolean().transform((recovering) => ({ recovering })),
  eviction_state: z.literal("Present").transform(() => ({ evictionState: { kind: "present" } as const })),
} satisfies Record<string, z.ZodType<Partial<TimelinePersistentState>>>;

function statusOf(word: z.output<typeof status>): UploadStatus {
  return word === "InProgress" ? "in-progress" : word === "Uploaded" ? "uploaded" : "deleting";
}

function isField(name: string): name is keyof typeof FIELDS {
  return Object.hasOwn(FIELDS, name);
}

/** Those of `updates` that `applyFields` names. @throws StrataError fix-input `bad-patch`, `bad-configuration`, `bad-term-history` */
export function parsePatch(updates: Readonly<Record<string, unknown>>, applyFields: readonly string[]): Partial<TimelinePersistentState> {
  let patch: Partial<TimelinePersistentState> = {};
  for (const name of applyFields) {
    if (!isField(name)) throw new StrataError("fix-input", "bad-patch", `field "${name}" cannot be changed (${Object.keys(FIELDS).join(", ")} can)`);
    if (!Object.hasOwn(updates, name)) throw new StrataError("fix-input", "bad-patch", `field "${name}" is to be applied and not among the updates`);
    const parsed = FIELDS[name].safeParse(updates[name]);
    if (!parsed.success) throw new StrataError("fix-input", "bad-patch", `field "${name}": ${z.prettifyError(parsed.error)}`);
    patch = { ...patch, ...parsed.data };
  }
  return patch;
}
