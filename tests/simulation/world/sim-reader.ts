/**
 * A reader, as a pageserver is one: follows one safekeeper after another, checks every byte it is sent, decodes the WAL, and
 * tells how far it has come, so that safekeepers may remove what nobody needs.
 */
import { ByteWriter } from "../../../src/kit/bytes.ts";
import { isStrataError } from "../../../src/kit/errors.ts";
import { type Lsn, lsnToString } from "../../../src/kit/lsn.ts";
import type { Platform } from "../../../src/platform/platform.ts";
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import type { VirtualMachine, VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import { WalRecord } from "../../../src/postgres/wal/record.ts";
import { WalStreamDecoder } from "../../../src/postgres/wal/stream-decoder.ts";
import { EMPTY_PAGESERVER_FEEDBACK, encodePageserverFeedback } from "../../../src/safekeeper/api/pageserver-feedback.ts";
import type { ClientCopyStream } from "../../../src/wire/client-copy-stream.ts";
import { PgClient } from "../../../src/wire/client.ts";
import { decodeSenderMessage, encodeHotStandbyFeedback, encodeStandbyStatus, postgresTimestamp } from "../../../src/wire/replication-messages.ts";
import type { Checker } from "./checker.ts";
import { SAFEKEEPER_PORT, type SimSafekeeper, TIMELINE } from "./sim-safekeeper.ts";
import type { Trace } from "./trace.ts";
import { SEGMENT_SIZE } from "./virtual-postgres.ts";
import { Violation } from "../violation.ts";

const TAG_PAGESERVER = 0x7a;
const PAUSE_MS = 300;
const SILENCE_MS = 5000;

export interface ReaderEnvironment {
  readonly world: VirtualWorld;
  readonly trace: Trace;
  readonly checker: Checker;
  readonly safekeepers: readonly SimSafekeeper[];
  /** Says how far it is as a pageserver does (and lets WAL go), or as a standby. */
  readonly pageserver: boolean;
}

export class SimReader {
  readonly name = "reader";
  readonly machine: VirtualMachine;
  readonly #environment: ReaderEnvironment;
  readonly #random: SeededRandom;
  #incarnation = 0;
  /** Everything below has been received. */
  #positionLsn: Lsn = 0;
  /** Wrong bytes of a damaged disk that the decoder did not take. */
  corruptionsNoticed = 0;

  constructor(environment: ReaderEnvironment) {
    this.#environment = environment;
    this.machine = environment.world.machine(this.name);
    this.#random = environment.world.random.fork("reader");
  }

  get releasesWal(): boolean {
    return this.#environment.pageserver;
  }

  get positionLsn(): Lsn {
    return this.#positionLsn;
  }

  start(): void {
    const incarnation = ++this.#incarnation;
    const platform = this.machine.boot();
    void this.#live(platform).catch((error: unknown) => {
      if (incarnation === this.#incarnation) this.#environment.checker.report(error);
    });
  }

  /** A new process begins at the start of the log, as long as that is there. */
  restart(): void {
    this.machine.kill();
    if (this.machine.isPaused) this.machine.resume();
    this.#positionLsn = 0;
    this.start();
  }

  async #live(platform: Platform): Promise<void> {
    for (;;) {
      const { safekeepers, checker, trace } = this.#environment;
      const donor = safekeepers[this.#random.below(safekeepers.length)];
      if (this.#positionLsn === 0) this.#positionLsn = checker.committed?.startLsn ?? 0;
      try {
        if (this.#positionLsn > 0) await this.#follow(platform, donor);
      } catch (error) {
        if (error instanceof Violation) throw error;
        trace.add(this.name, `left ${donor.name}: ${String(error)}`);
        // What was removed is no longer asked for.
        if (String(error).includes("WAL segment")) this.#positionLsn = Math.max(this.#positionLsn, donor.seen?.commitLsn ?? 0);
      }
      await platform.clock.sleep(this.#random.float() * PAUSE_MS);
    }
  }

  async #follow(platform: Platform, donor: SimSafekeeper): Promise<void> {
    const { timelineId, tenantId } = TIMELINE;
    const client = await PgClient.connect(platform.network, {
      address: { host: donor.name, port: SAFEKEEPER_PORT },
      parameters: { user: "reader", replication: "true", application_name: this.#environment.pageserver ? "pageserver" : "standby", options: `-c timeline_id=${timelineId} tenant_id=${tenantId}` },
      clock: platform.clock, random: platform.random, timeoutMs: 2000,
    });
    let heard = true;
    const silence = (): void => {
      if (!heard) client.destroy();
      heard = false;
      timer = platform.clock.after(SILENCE_MS, silence);
    };
    let timer = platform.clock.after(SILENCE_MS, silence);
    try {
      await this.#receive(platform, donor, { client, onHeard: () => (heard = true) });
    } finally {
      timer.cancel();
      client.destroy();
    }
  }

  async #receive(platform: Platform, donor: SimSafekeeper, connection: { client: PgClient; onHeard: () => void }): Promise<void> {
    const start = this.#positionLsn;
    const copy = await connection.client.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(start)}`);
    const decoder = new WalStreamDecoder(start, 17, SEGMENT_SIZE);
    const record = new WalRecord();
    let position = start;
    for (let left = 5 + this.#random.below(60); left > 0; left--) {
      const bytes = await copy.read();
      if (bytes === null) return;
      connection.onHeard();
      const message = decodeSenderMessage(bytes);
      if (message.kind === "wal-data") {
        if (message.startLsn !== position) throw new Violation(`${donor.name} sent a reader WAL at ${message.startLsn} instead of ${position}`);
        const right = this.#environment.checker.read(donor, position, message.data);
        position += message.data.length;
        this.#decode({ decoder, record, bytes: message.data, right });
      }
      this.#reply(platform, copy);
    }
  }

  #decode(piece: { decoder: WalStreamDecoder; record: WalRecord; bytes: Uint8Array; right: boolean }): void {
    const { decoder, record, bytes, right } = piece;
    try {
      decoder.feed(bytes);
      while (decoder.next(record)) this.#positionLsn = record.endLsn;
    } catch (error) {
      if (!isStrataError(error) || error.kind !== "corrupt") throw new Violation(`decoding WAL failed: ${String(error)}`);
      if (right) throw new Violation(`committed WAL does not decode: ${error.message}`);
      this.corruptionsNoticed++;
      throw error;
    }
  }

  #reply(platform: Platform, copy: ClientCopyStream): void {
    const timestamp = postgresTimestamp(platform.clock.wallMs());
    const lsn = this.#positionLsn;
    if (this.#environment.pageserver) {
      const feedback = encodePageserverFeedback({ ...EMPTY_PAGESERVER_FEEDBACK, lastReceivedLsn: lsn, diskConsistentLsn: lsn, remoteConsistentLsn: lsn, replyTimestamp: timestamp });
      copy.write(new ByteWriter(feedback.length + 9).u8(TAG_PAGESERVER).u64be(BigInt(feedback.length)).bytes(feedback).finish());
      return;
    }
    copy.write(encodeStandbyStatus({ writeLsn: lsn, flushLsn: lsn, applyLsn: lsn, timestamp, replyRequested: false }));
    if (this.#random.chance(0.2)) copy.write(encodeHotStandbyFeedback({ timestamp, xmin: 700 + this.#random.below(100), xminEpoch: 0, catalogXmin: 0, catalogXminEpoch: 0 }));
  }
}
