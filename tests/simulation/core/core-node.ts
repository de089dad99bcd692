/**
 * A safekeeper of the fast layer: the shipping acceptor and its handlers over a log in memory that tells what is durable from
 * what is not. An entry of the log is one byte and one LSN; the byte tells its writer and its place.
 */
import type { Lsn } from "../../../src/kit/lsn.ts";
import type { SafekeeperTimelineInfo } from "../../../src/broker/api/messages.ts";
import type { AcceptorMessage, AppendRequest, ProposerMessage } from "../../../src/safekeeper/api/proposer-messages.ts";
import { Acceptor, type Effect, type LogView, type Steps } from "../../../src/safekeeper/consensus/acceptor.ts";
import { handleAppend, handleFlush } from "../../../src/safekeeper/consensus/append.ts";
import { handleElected, handleGreeting, handleVoteRequest } from "../../../src/safekeeper/consensus/election.ts";
import { newTimelineState, type TimelinePersistentState } from "../../../src/safekeeper/control-file/state.ts";

export const IDENTITY = { tenantId: "1a".repeat(16), timelineId: "2b".repeat(16), systemId: 7n, pgVersion: 170010, walSegmentSizeBytes: 1024 * 1024 };
/** Where logs begin. */
export const FIRST_LSN: Lsn = 16;

/** What `writer` writes at `lsn`. */
export function entryOf(writer: number, lsn: Lsn): number {
  return (writer * 31 + lsn * 7) & 0xff;
}

export class MemoryLog implements LogView {
  startLsn: Lsn = 0;
  /** Never changed in place: states of an exploration share them. */
  entries: readonly number[] = [];
  flushed: Lsn = 0;
  truncationNeeded = true;

  get writeLsn(): Lsn {
    return this.startLsn + this.entries.length;
  }
  get flushRecordLsn(): Lsn {
    return this.flushed;
  }
  get needsTruncation(): boolean {
    return this.truncationNeeded;
  }

  clone(): MemoryLog {
    return Object.assign(new MemoryLog(), this);
  }

  perform(effect: Effect): void {
    switch (effect.kind) {
      case "initialize-first-segment":
        this.startLsn = effect.lsn;
        this.entries = [];
        break;
      case "truncate-wal":
        if (effect.lsn < this.writeLsn) this.entries = this.entries.slice(0, effect.lsn - this.startLsn);
        this.flushed = effect.lsn;
        this.truncationNeeded = false;
        break;
      case "write-wal":
        this.entries = [...this.entries, ...effect.bytes];
        break;
      case "flush-wal":
        if (!this.truncationNeeded) this.flushed = this.writeLsn;
        break;
    }
  }

  /** @param kept how many of the entries that were not durable are there all the same */
  crash(kept: number): void {
    this.entries = this.entries.slice(0, Math.max(0, this.flushed - this.startLsn) + kept);
    this.flushed = this.flushed === 0 ? 0 : this.writeLsn;
    this.truncationNeeded = true;
  }
}

/** Thrown into a handler's middle: power fails between two of its effects. */
export class PowerFailure extends Error {}

export class CoreNode {
  readonly id: number;
  readonly safekeepers: number;
  /** In the control file. */
  durable: TimelinePersistentState;
  log = new MemoryLog();
  /** Null while it is down. */
  acceptor: Acceptor | null;

  /** @param safekeepers of how many the proposers say that there are; 0 = they do not say */
  constructor(id: number, safekeepers = 0) {
    this.id = id;
    this.safekeepers = safekeepers;
    this.durable = newTimelineState({ ...IDENTITY, startLsn: 0, commitLsn: 0, createdMs: 0 });
    this.acceptor = openAcceptor(this);
  }

  restart(): void {
    this.acceptor = openAcceptor(this);
  }

  /** @param kept entries beyond the durable ones that survived: never below what the control file calls committed */
  crash(kept: number): void {
    // What was prepared for a timeline whose start was not yet persisted is prepared again.
    if (this.durable.commitLsn === 0) this.log = new MemoryLog();
    else this.log.crash(Math.min(kept, this.log.entries.length - Math.max(0, this.log.flushed - this.log.startLsn)));
    this.acceptor = null;
  }

  /** Runs a handler to its end. @param failAfter effects after which power fails; then nothing is answered @throws PowerFailure, StrataError */
  run<T>(handler: (acceptor: Acceptor) => Steps<T>, failAfter = Number.POSITIVE_INFINITY): T {
    if (this.acceptor === null) throw new PowerFailure();
    const steps = handler(this.acceptor);
    for (let done = 0; ; done++) {
      const step = steps.next();
      if (step.done === true) return step.value;
      if (done >= failAfter) throw new PowerFailure();
      if (step.value.kind === "persist") this.durable = step.value.state;
      else this.log.perform(step.value);
    }
  }

  receive(message: ProposerMessage, failAfter?: number): AcceptorMessage | null {
    return this.run<AcceptorMessage | null>((acceptor) => handlerOf(acceptor, message, this.safekeepers), failAfter);
  }

  flush(commitLsn: Lsn): AcceptorMessage {
    return this.run((acceptor) => handleFlush(acceptor, commitLsn));
  }

  /** What it tells the broker. */
  info(): Pick<SafekeeperTimelineInfo, "term" | "lastLogTerm" | "flushLsn" | "commitLsn"> | null {
    if (this.acceptor === null) return null;
    const { persisted, lastLogTerm, flushLsn, volatile } = this.acceptor;
    return { term: persisted.term, lastLogTerm, flushLsn, commitLsn: volatile.commitLsn };
  }
}

function openAcceptor({ id, durable, log }: CoreNode): Acceptor {
  return new Acceptor({ nodeId: id, state: durable, log });
}

function handlerOf(acceptor: Acceptor, message: ProposerMessage, safekeepers: number): Steps<AcceptorMessage | null> {
  switch (message.kind) {
    case "greeting":
      return handleGreeting(acceptor, message);
    case "vote-request":
      return handleVoteRequest(acceptor, message);
    case "elected":
      return handleElected(acceptor, message, safekeepers);
    case "append":
      return handleAppend(acceptor, message satisfies AppendRequest);
  }
}
