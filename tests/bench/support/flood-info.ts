/** What safekeepers tell of a timeline, with values as they are in use. */
import type { SafekeeperTimelineInfo } from "../../../src/broker/api/messages.ts";

export const FLOOD_INFO: SafekeeperTimelineInfo = {
  safekeeperId: 1, tenantId: "11".repeat(16), timelineId: "22".repeat(16), term: 5, lastLogTerm: 5, flushLsn: 0x1_2345_6780, commitLsn: 0x1_2345_6780, backupLsn: 0x1_2000_0000,
  remoteConsistentLsn: 0x1_2300_0000, peerHorizonLsn: 0x1_2345_0000, localStartLsn: 0x100_0000, standbyHorizon: 0, safekeeperConnstr: "127.0.0.1:5454", httpConnstr: "127.0.0.1:7676",
};
