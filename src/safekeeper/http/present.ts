/** Our state in the words of the HTTP interface (`api/http.ts`). */
import { lsnToString } from "../../kit/lsn.ts";
import { configurationToJson, type TimelineStatusReply } from "../api/http.ts";
import { EMPTY_PAGESERVER_FEEDBACK } from "../api/pageserver-feedback.ts";
import { u64Json } from "../control-file/json.ts";
import type { TimelinePersistentState } from "../control-file/state.ts";
import type { WalSender } from "../send-wal/wal-senders.ts";
import type { Timeline } from "../timeline/timeline.ts";

const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1);

export function presentStatus(timeline: Timeline): TimelineStatusReply {
  const { state, acceptor } = timeline;
  const { volatile } = acceptor;
  return {
    tenant_id: state.tenantId,
    timeline_id: state.timelineId,
    mconf: configurationToJson(state.configuration),
    recovering: state.recovering,
    safekeeper_count: state.safekeeperCount,
    acceptor_state: { term: state.term, epoch: acceptor.lastLogTerm, term_history: presentHistory(state) },
    pg_info: { pg_version: state.pgVersion, system_id: u64Json(state.systemId), wal_seg_size: state.walSegmentSizeBytes },
    flush_lsn: lsnToString(acceptor.flushLsn),
    timeline_start_lsn: lsnToString(state.timelineStartLsn),
    local_start_lsn: lsnToString(state.localStartLsn),
    commit_lsn: lsnToString(volatile.commitLsn),
    backup_lsn: lsnToString(volatile.backupLsn),
    peer_horizon_lsn: lsnToString(volatile.peerHorizonLsn),
    remote_consistent_lsn: lsnToString(volatile.remoteConsistentLsn),
    peers: timeline.alivePeers().map((peer) => ({
      sk_id: peer.safekeeperId, term: peer.term, last_log_term: peer.lastLogTerm, flush_lsn: lsnToString(peer.flushLsn), commit_lsn: lsnToString(peer.commitLsn),
      local_start_lsn: lsnToString(peer.localStartLsn), pg_connstr: peer.safekeeperConnstr, http_connstr: peer.httpConnstr, https_connstr: peer.httpsConnstr ?? null,
    })),
    walsenders: timeline.senders.all.map((sender) => presentSender(timeline, sender)),
    walreceivers: timeline.receivers.all.map((receiver) => ({ conn_id: receiver.connectionId, status: receiver.status === "voting" ? "Voting" as const : "Streaming" as const })),
  };
}

function presentHistory(state: TimelinePersistentState): { term: number; lsn: string }[] {
  return state.termHistory.map((entry) => ({ term: entry.term, lsn: lsnToString(entry.lsn) }));
}

export function presentSender(timeline: Timeline, sender: WalSender): TimelineStatusReply["walsenders"][number] {
  const { info } = sender;
  const ttid = { tenant_id: timeline.id.tenantId, timeline_id: timeline.id.timelineId };
  return { Vanilla: { ttid, addr: info.remote, conn_id: info.connectionId, appname: info.applicationName, feedback: presentFeedback(sender) } };
}

function presentFeedback({ feedback }: WalSender): TimelineStatusReply["walsenders"][number]["Vanilla"]["feedback"] {
  if (feedback.kind === "standby") {
    const { reply, hotStandby } = feedback;
    return {
      Standby: {
        reply: { write_lsn: lsnToString(reply.writeLsn), flush_lsn: lsnToString(reply.flushLsn), apply_lsn: lsnToString(reply.applyLsn), reply_ts: Number(reply.timestamp), reply_requested: reply.replyRequested },
        hs_feedback: { ts: Number(hotStandby.timestamp), xmin: u64Json(hotStandby.xmin), catalog_xmin: u64Json(hotStandby.catalogXmin) },
      },
    };
  }
  // A reader that has said nothing yet is shown as the peer does: an empty pageserver feedback.
  const said = feedback.kind === "pageserver" ? feedback.feedback : EMPTY_PAGESERVER_FEEDBACK;
  return {
    Pageserver: {
      current_timeline_size: said.currentTimelineSizeBytes, last_received_lsn: lsnToString(said.lastReceivedLsn), disk_consistent_lsn: lsnToString(said.diskConsistentLsn),
      remote_consistent_lsn: lsnToString(said.remoteConsistentLsn), replytime: new Date(POSTGRES_EPOCH_MS + Number(said.replyTimestamp / 1000n)).toISOString(),
      shard_number: said.shardNumber, corruption_detected: said.corruptionDetected,
    },
  };
}

/** The control file as JSON: the peer's field names. */
