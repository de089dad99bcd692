/** `/v1/debug_dump`: everything this safekeeper knows, for people in trouble. Source of the form: the peer safekeeper/src/debug_dump.rs. */
import { lsnToString } from "../../kit/lsn.ts";
import type { Platform } from "../../platform/platform.ts";
import type { SafekeeperConfig } from "../config.ts";
import { presentState } from "../control-file/json.ts";
import { presentSender } from "./present.ts";
import type { Timeline } from "../timeline/timeline.ts";

export interface DumpOptions {
  readonly controlFile: boolean;
  readonly memory: boolean;
  readonly diskContent: boolean;
  readonly termHistory: boolean;
}

export interface DumpContext {
  readonly platform: Platform;
  readonly config: SafekeeperConfig;
  readonly nodeId: number;
  readonly walBackupEnabled: boolean;
}

export async function debugDump(context: DumpContext, timelines: readonly Timeline[], options: DumpOptions): Promise<unknown> {
  const { platform, config } = context;
  const startTime = new Date(platform.clock.wallMs()).toISOString();
  const dumped: unknown[] = [];
  for (const timeline of timelines) dumped.push(await dumpTimeline(context, timeline, options));
  const address = ({ host, port }: { host: string; port: number }): string => `${host}:${port}`;
  return {
    start_time: startTime,
    finish_time: new Date(platform.clock.wallMs()).toISOString(),
    timelines: dumped,
    timelines_count: dumped.length,
    config: {
      id: context.nodeId,
      workdir: config.dataDirectory,
      listen_pg_addr: address(config.pgAddress),
      listen_http_addr: address(config.httpAddress),
      no_sync: config.noSync,
      max_offloader_lag_bytes: config.maxOffloaderLagBytes,
      wal_backup_enabled: context.walBackupEnabled,
    },
  };
}

async function dumpTimeline(context: DumpContext, timeline: Timeline, options: DumpOptions): Promise<unknown> {
  const state = options.termHistory ? timeline.state : { ...timeline.state, termHistory: [] };
  return {
    tenant_id: timeline.id.tenantId,
    timeline_id: timeline.id.timelineId,
    control_file: options.controlFile ? presentState(state) : null,
    memory: options.memory ? dumpMemory(timeline) : null,
    disk_content: options.diskContent ? { files: await dumpFiles(context.platform, timeline.directory) } : null,
  };
}

function dumpMemory(timeline: Timeline): unknown {
  const { acceptor, store, receivers, senders } = timeline;
  const { commitLsn, backupLsn, peerHorizonLsn, remoteConsistentLsn } = acceptor.volatile;
  return {
    is_cancelled: timeline.signal.aborted,
    peers_info_len: timeline.alivePeers().length,
    walsenders: senders.all.map((sender) => presentSender(timeline, sender)),
    active: timeline.active,
    num_computes: receivers.count.value,
    last_removed_segno: Math.max(0, timeline.removedBelowSegment - 1),
    epoch_start_lsn: lsnToString(acceptor.termStartLsn),
    mem_state: {
      commit_lsn: lsnToString(commitLsn), backup_lsn: lsnToString(backupLsn), peer_horizon_lsn: lsnToString(peerHorizonLsn),
      remote_consistent_lsn: lsnToString(remoteConsistentLsn), proposer_uuid: timeline.state.proposerUuid,
    },
    mgr_status: timeline.busyWith ?? "Wait",
    write_lsn: lsnToString(store.writeLsn),
    write_record_lsn: lsnToString(store.writeRecordLsn),
    flush_lsn: lsnToString(store.flushRecordLsn),
    needs_truncation: store.needsTruncation,
    failure: store.failure?.message ?? null,
  };
}

/** Names and sizes; a directory that changes meanwhile is shown as far as it was seen. */
async function dumpFiles(platform: Platform, directory: string): Promise<unknown[]> {
  const files: unknown[] = [];
  for (const name of await platform.files.list(directory)) {
    const stat = await platform.files.stat(`${directory}/${name}`).catch(() => null);
    if (stat !== null) files.push({ name, size: stat.sizeBytes, modified: new Date(stat.modifiedMs).toISOString() });
  }
  return files;
}
