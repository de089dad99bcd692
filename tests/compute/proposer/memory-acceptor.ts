/** The shipping acceptor over a log in memory: for tests of the proposer's side alone. */
import { concatBytes } from "../../../src/kit/bytes.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import type { AcceptorMessage, ProposerMessage } from "../../../src/safekeeper/api/proposer-messages.ts";
import { Acceptor, type Effect, type LogView, type Steps } from "../../../src/safekeeper/consensus/acceptor.ts";
import { handleAppend, handleFlush } from "../../../src/safekeeper/consensus/append.ts";
import { handleElected, handleGreeting, handleVoteRequest } from "../../../src/safekeeper/consensus/election.ts";
import { newTimelineState } from "../../../src/safekeeper/control-file/state.ts";

export const TENANT = "11".repeat(16);
export const TIMELINE = "22".repeat(16);
export const SEGMENT = 16 * 1024 * 1024;

export class MemoryLog implements LogView {
  startLsn: Lsn = 0;
  bytes: Uint8Array = new Uint8Array(0);
  flushed: Lsn = 0;
  needsTruncation = true;
  get writeLsn(): Lsn {
    return this.startLsn + this.bytes.length;
  }
  get flushRecordLsn(): Lsn {
    return this.flushed;
  }

  run(effect: Effect): void {
    if (effect.kind === "initialize-first-segment") {
      this.startLsn = effect.lsn;
      this.bytes = new Uint8Array(0);
    } else if (effect.kind === "truncate-wal") {
      this.bytes = this.bytes.slice(0, effect.lsn - this.startLsn);
      this.flushed = effect.lsn;
      this.needsTruncation = false;
    } else if (effect.kind === "write-wal") {
      this.bytes = concatBytes([this.bytes, effect.bytes]);
    } else if (effect.kind === "flush-wal") {
      this.flushed = this.writeLsn === this.startLsn && this.flushed === 0 ? 0 : this.writeLsn;
    }
  }

  /** What a crash leaves: only what was flushed. */
  crash(): void {
    this.bytes = this.bytes.slice(0, Math.max(0, this.flushed - this.startLsn));
    this.needsTruncation = true;
  }

  read(lsn: Lsn, maxBytes: number): Uint8Array {
    return this.bytes.slice(lsn - this.startLsn, lsn - this.startLsn + maxBytes);
  }
}

export class MemoryAcceptor {
  readonly nodeId: number;
  readonly log = new MemoryLog();
  acceptor: Acceptor;
  #proposerCommit: Lsn = 0;

  constructor(nodeId: number, startLsn: Lsn = 0, pgVersion = 170010) {
    this.nodeId = nodeId;
    const state = newTimelineState({ tenantId: TENANT, timelineId: TIMELINE, pgVersion, systemId: 0n, walSegmentSizeBytes: SEGMENT, startLsn, commitLsn: startLsn, createdMs: 0 });
    this.acceptor = new Acceptor({ nodeId, state, log: this.log });
  }

  /** Answers one message, having flushed at once. @throws StrataError where a safekeeper would refuse */
  receive(message: ProposerMessage): AcceptorMessage | null {
    switch (message.kind) {
      case "greeting":
        return this.#run(handleGreeting(this.acceptor, message));
      case "vote-request":
        return this.#run(handleVoteRequest(this.acceptor, message));
      case "elected":
        return this.#run(handleElected(this.acceptor, message));
      case "append": {
        const answer = this.#run(handleAppend(this.acceptor, message));
        if (answer !== null && answer.flushLsn === 0) return answer;
        this.#proposerCommit = message.commitLsn;
        return this.#run(handleFlush(this.acceptor, this.#proposerCommit));
      }
    }
  }

  restart(): void {
    this.log.crash();
    this.acceptor = new Acceptor({ nodeId: this.nodeId, state: this.acceptor.persisted, log: this.log });
  }

  #run<Result>(steps: Steps<Result>): Result {
    for (;;) {
      const step = steps.next();
      if (step.done === true) return step.value;
      this.log.run(step.value);
    }
  }
}
