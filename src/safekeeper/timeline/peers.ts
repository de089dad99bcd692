/** What other safekeepers of a timeline last said about themselves, through the broker. */
import type { NodeId } from "../../kit/ids.ts";
import type { SafekeeperTimelineInfo } from "../../broker/api/messages.ts";

export interface PeerInfo {
  readonly info: SafekeeperTimelineInfo;
  readonly heardAtMs: number;
}

/** More safekeepers than a timeline can have members: past it the longest silent is forgotten. */
const MAX_PEERS = 64;

export class Peers {
  readonly #peers = new Map<NodeId, PeerInfo>();

  record(info: SafekeeperTimelineInfo, nowMs: number): void {
    // Re-inserted, so that the map is in order of silence.
    this.#peers.delete(info.safekeeperId);
    this.#peers.set(info.safekeeperId, { info, heardAtMs: nowMs });
    if (this.#peers.size <= MAX_PEERS) return;
    const [longestSilent] = this.#peers.keys();
    this.#peers.delete(longestSilent);
  }

  /** Those heard of within `timeoutMs`. Our own messages come back too, so without a broker there are none. */
  alive(nowMs: number, timeoutMs: number): SafekeeperTimelineInfo[] {
    return [...this.#peers.values()].filter((peer) => nowMs - peer.heardAtMs <= timeoutMs).map((peer) => peer.info);
  }
}
