/**
 * A compute of the fast layer: the shipping core of the proposer, first settling the log, then writing entries. What the shell
 * does around it (candidacies, where WAL comes from) is done here without connections, clocks or bytes on a wire.
 */
import type { Lsn } from "../../../src/kit/lsn.ts";
import { ProposerCore } from "../../../src/compute/proposer/core.ts";
import type { ProposerMode } from "../../../src/compute/proposer/core-types.ts";
import { EMPTY_CONFIGURATION } from "../../../src/safekeeper/api/membership.ts";
import type { Term } from "../../../src/safekeeper/api/term-history.ts";
import { entryOf, FIRST_LSN, IDENTITY } from "./core-node.ts";

export class CoreCompute {
  readonly index: number;
  readonly slots: number;
  core: ProposerCore;
  /** Names the server whose entries these are; another one for each life. */
  writer: number;
  mode: "sync" | "run" = "sync";
  /** Bumped when a candidacy ends: connections of earlier ones are closed. */
  candidacy = 0;
  startLsn: Lsn = 0;
  /** End of the local log. */
  endLsn: Lsn = 0;
  electedTerm: Term | null = null;
  acknowledgedLsn: Lsn = 0;
  /** Highest acknowledged commit anywhere when settling began. */
  settlingSince: Lsn;

  constructor(options: { index: number; slots: number; writer: number; settlingSince: Lsn }) {
    this.index = options.index;
    this.slots = options.slots;
    this.writer = options.writer;
    this.settlingSince = options.settlingSince;
    this.core = newCore(this.slots, { kind: "sync" });
  }

  clone(core: ProposerCore): CoreCompute {
    return Object.assign(Object.create(CoreCompute.prototype) as CoreCompute, this, { core });
  }

  /** A base backup is asked for, and all begins anew. */
  restart(writer: number, settlingSince: Lsn): void {
    this.writer = writer;
    this.settlingSince = settlingSince;
    this.mode = "sync";
    this.startLsn = this.endLsn = 0;
    this.candidacy++;
    this.core = newCore(this.slots, { kind: "sync" });
  }

  /** The server starts where the log was settled. */
  run(settledLsn: Lsn): void {
    this.mode = "run";
    this.startLsn = this.endLsn = this.acknowledgedLsn = settledLsn === 0 ? FIRST_LSN : settledLsn;
    this.electedTerm = null;
    this.campaign();
  }

  campaign(): void {
    this.candidacy++;
    const { startLsn, endLsn, electedTerm } = this;
    this.core = newCore(this.slots, this.mode === "sync" ? { kind: "sync" } : { kind: "run", startLsn, availableLsn: endLsn, previousTerm: electedTerm });
  }

  /** The server writes. */
  write(entries: number): void {
    this.endLsn += entries;
    if (this.mode === "run") this.core.walAvailable(this.endLsn);
  }

  /** Its own entries in the range, as far as it has them from there on. */
  localEntries(from: Lsn, to: Lsn): number[] | null {
    if (from < this.startLsn || from >= this.endLsn) return null;
    return Array.from({ length: Math.min(to, this.endLsn) - from }, (_, at) => entryOf(this.writer, from + at));
  }
}

function newCore(slots: number, mode: ProposerMode): ProposerCore {
  return new ProposerCore({ identity: IDENTITY, configuration: EMPTY_CONFIGURATION, mode, slots });
}
