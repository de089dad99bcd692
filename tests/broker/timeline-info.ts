import type { SafekeeperTimelineInfo } from "../../src/broker/api/messages.ts";

/** A timeline info with plausible values, some of them given. */
export function timelineInfo(given: Partial<SafekeeperTimelineInfo> = {}): SafekeeperTimelineInfo {
  return {
    tenantId: "a".repeat(32), timelineId: "b".repeat(32), safekeeperId: 1, term: 3, lastLogTerm: 3, flushLsn: 0x2000, commitLsn: 0x1000,
    backupLsn: 0, remoteConsistentLsn: 0, peerHorizonLsn: 0, localStartLsn: 0x1000, standbyHorizon: 0,
    safekeeperConnstr: "127.0.0.1:5454", httpConnstr: "127.0.0.1:7676", ...given,
  };
}
