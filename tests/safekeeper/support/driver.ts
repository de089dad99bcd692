/** Speaks the proposer's side of the protocol to a running safekeeper, step by step, as a test wants it. */
import type { Lsn } from "../../../src/kit/lsn.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { EMPTY_CONFIGURATION } from "../../../src/safekeeper/api/membership.ts";
import type { AcceptorGreeting, AcceptorMessage, AppendResponse, ProposerGreeting, ProposerMessage, VoteResponse } from "../../../src/safekeeper/api/proposer-messages.ts";
import { decodeAcceptorMessage, encodeProposerMessage, MAX_APPEND_BYTES, type ProposerProtocolVersion } from "../../../src/safekeeper/api/proposer-protocol.ts";
import type { TermHistory } from "../../../src/safekeeper/api/term-history.ts";
import type { ClientCopyStream } from "../../../src/wire/client-copy-stream.ts";
import { PgClient } from "../../../src/wire/client.ts";
import type { SampleWal } from "./sample-wal.ts";

export const platform = realPlatform();

export interface Target {
  readonly port: number;
  readonly tenantId: string;
  readonly timelineId: string;
  readonly password?: string;
  readonly applicationName?: string;
  /** More connection options. */
  readonly options?: string;
  /** The timeline's other safekeepers, host:port, as a proposer says who they are. */
  readonly peers?: readonly string[];
}

export function connectTo(target: Target): Promise<PgClient> {
  return PgClient.connect(platform.network, {
    address: { host: "127.0.0.1", port: target.port },
    parameters: {
      user: "test", database: "replication", application_name: target.applicationName ?? "driver",
      options: `-c timeline_id=${target.timelineId} tenant_id=${target.tenantId}${target.peers === undefined ? "" : ` strata_peers=${target.peers.join(",")}`}${target.options ?? ""}`,
    },
    ...(target.password === undefined ? {} : { password: target.password }),
    clock: platform.clock,
    random: platform.random,
  });
}

export class ProposerDriver {
  readonly #client: PgClient;
  readonly #copy: ClientCopyStream;
  readonly #target: Target;
  readonly version: ProposerProtocolVersion;
  term = 0;

  private constructor(client: PgClient, copy: ClientCopyStream, options: { target: Target; version: ProposerProtocolVersion }) {
    this.#client = client;
    this.#copy = copy;
    this.#target = options.target;
    this.version = options.version;
  }

  static async connect(target: Target, options: { version?: ProposerProtocolVersion; create?: boolean } = {}): Promise<ProposerDriver> {
    const client = await connectTo(target);
    const version = options.version ?? 3;
    const copy = await client.copyBoth(`START_WAL_PUSH (proto_version '${version}', allow_timeline_creation '${options.create ?? true}')`);
    return new ProposerDriver(client, copy, { target, version });
  }

  send(message: ProposerMessage): void {
    this.#copy.write(encodeProposerMessage(message, this.version));
  }

  /** A message that was encoded before. */
  sendEncoded(bytes: Uint8Array): void {
    this.#copy.write(bytes);
  }

  async receive(): Promise<AcceptorMessage> {
    const bytes = await this.#copy.read();
    if (bytes === null) throw new Error("the safekeeper ended the stream");
    return decodeAcceptorMessage(bytes, this.version);
  }

  async greet(over: Partial<ProposerGreeting> = {}): Promise<AcceptorGreeting> {
    const { tenantId, timelineId } = this.#target;
    this.send({ kind: "greeting", tenantId, timelineId, configuration: EMPTY_CONFIGURATION, pgVersion: 170002, systemId: 7n, walSegmentSizeBytes: 1 << 20, ...over });
    const reply = await this.receive();
    if (reply.kind !== "greeting") throw new Error(`a greeting was answered by ${reply.kind}`);
    return reply;
  }

  async requestVote(term: number): Promise<VoteResponse> {
    this.send({ kind: "vote-request", generation: 0, term });
    const reply = await this.receive();
    if (reply.kind !== "vote") throw new Error(`a vote request was answered by ${reply.kind}`);
    if (reply.voteGiven) this.term = term;
    return reply;
  }

  elected(termHistory: TermHistory, startStreamingAt: Lsn): void {
    this.send({ kind: "elected", generation: 0, term: this.term, startStreamingAt, termHistory });
  }

  append(wal: SampleWal, range: { from: Lsn; to: Lsn; commitLsn: Lsn }): void {
    const { from, to, commitLsn } = range;
    let at = from;
    do {
      const end = Math.min(to, at + MAX_APPEND_BYTES);
      this.send({ kind: "append", generation: 0, term: this.term, beginLsn: at, endLsn: end, commitLsn, truncateLsn: from, walData: wal.bytes(at, end) });
      at = end;
    } while (at < to);
  }

  /** The first answer that says the log is durable up to `lsn`. */
  async flushedTo(lsn: Lsn): Promise<AppendResponse> {
    for (;;) {
      const reply = await this.receive();
      if (reply.kind === "append" && reply.flushLsn >= lsn) return reply;
    }
  }

  /** Greets, gets elected in `term` for a timeline that starts with `wal`, and sends all of it, committed. */
  async pushNew(wal: SampleWal, term: number): Promise<void> {
    await this.greet();
    await this.requestVote(term);
    this.elected([{ term, lsn: wal.startLsn }], wal.startLsn);
    this.append(wal, { from: wal.startLsn, to: wal.endLsn, commitLsn: wal.endLsn });
    await this.flushedTo(wal.endLsn);
  }

  close(): void {
    this.#client.close();
  }
}
