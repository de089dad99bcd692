/** Copies of the stateful parts, for the exploration. Needs `openCores`. */
import type { Election } from "../../../src/compute/proposer/core-types.ts";
import type { ProposerCore } from "../../../src/compute/proposer/core.ts";
import type { VoteResponse } from "../../../src/safekeeper/api/proposer-messages.ts";
import { Acceptor } from "../../../src/safekeeper/consensus/acceptor.ts";
import { CoreNode } from "./core-node.ts";

interface OpenSlot {
  readonly state: string;
  readonly nodeId: number | null;
  readonly vote: VoteResponse | null;
  readonly sentLsn: number;
  readonly flushLsn: number;
  readonly commitLsn: number;
  readonly toldCommitLsn: number;
  readonly heartbeatDue: boolean;
}

interface OpenCore {
  _slots: OpenSlot[];
  _phase: string;
  _availableLsn: number;
  _settledAll: boolean;
  _effects: unknown[];
  _election: Election | null;
}

export function open(core: ProposerCore): OpenCore {
  const opened = core as unknown as OpenCore;
  if (!Array.isArray(opened._slots)) throw new Error("the cores were loaded with their private fields closed");
  return opened;
}

export function cloneCore(core: ProposerCore): ProposerCore {
  const copy = Object.assign(Object.create(Object.getPrototypeOf(core) as object) as ProposerCore, core);
  const opened = open(copy);
  opened._slots = opened._slots.map((slot) => ({ ...slot }));
  opened._effects = [];
  return copy;
}

export function cloneNode(node: CoreNode): CoreNode {
  const log = node.log.clone();
  const copy = Object.assign(Object.create(CoreNode.prototype) as CoreNode, node, { log });
  if (node.acceptor !== null) {
    copy.acceptor = Object.assign(Object.create(Acceptor.prototype) as Acceptor, node.acceptor, { log, volatile: { ...node.acceptor.volatile } });
  }
  return copy;
}
