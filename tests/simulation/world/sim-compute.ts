/**
 * A compute's life: it settles the log, starts a server there, runs the shipping proposer over its WAL, works, and when the
 * proposer says that it is fenced, stops the server and begins anew.
 */
import { Cancelled, isStrataError } from "../../../src/kit/errors.ts";
import { type Lsn, parseLsn } from "../../../src/kit/lsn.ts";
import type { Platform } from "../../../src/platform/platform.ts";
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import type { VirtualMachine, VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import { Proposer } from "../../../src/compute/proposer/proposer.ts";
import { settleLog } from "../../../src/compute/proposer/settle-log.ts";
import type { ProposerIdentity } from "../../../src/compute/proposer/core-types.ts";
import type { Checker } from "./checker.ts";
import { lastRecordBefore } from "./last-record.ts";
import { SAFEKEEPER_PORT, TIMELINE } from "./sim-safekeeper.ts";
import { type Trace, TraceLogger } from "./trace.ts";
import { PG_VERSION_NUM, SEGMENT_SIZE, SYSTEM_ID, VirtualPostgres, withLocalServer } from "./virtual-postgres.ts";

export interface ComputeEnvironment {
  readonly world: VirtualWorld;
  readonly trace: Trace;
  readonly checker: Checker;
  readonly safekeepers: readonly string[];
  /** Where a timeline without WAL begins. */
  readonly initialLsn: Lsn;
  readonly recordMaxBytes: number;
  /** Between two pieces of work, at most. */
  readonly workIntervalMs: number;
  /** False: its first life begins where the timeline does, without asking. */
  readonly settlesFirst: boolean;
}

const SETTLE_TIMEOUT_MS = 20_000;
const RESTART_MS = 400;

export class SimCompute {
  readonly name: string;
  readonly machine: VirtualMachine;
  readonly #environment: ComputeEnvironment;
  #incarnation = 0;
  #lives = 0;
  /** The proposer and server of the present life; null while there is none. */
  #current: { readonly proposer: Proposer; readonly server: VirtualPostgres } | null = null;
  idle = false;

  constructor(environment: ComputeEnvironment, index: number) {
    this.#environment = environment;
    this.name = `compute${index}`;
    this.machine = environment.world.machine(this.name);
  }

  get isUp(): boolean {
    return this.#incarnation % 2 === 1;
  }

  get current(): { readonly proposer: Proposer; readonly server: VirtualPostgres } | null {
    return this.#current;
  }

  start(): void {
    if (this.isUp) return;
    const incarnation = ++this.#incarnation;
    const platform = this.machine.boot();
    void this.#live(platform).catch((error: unknown) => {
      if (incarnation === this.#incarnation && !(error instanceof Cancelled)) this.#environment.checker.report(error);
    });
  }

  stop(how: "crash" | "kill"): void {
    if (!this.isUp) return;
    this.#incarnation++;
    this.#current = null;
    if (how === "crash") this.machine.crash();
    else this.machine.kill();
    if (this.machine.isPaused) this.machine.resume();
  }

  async #live(platform: Platform): Promise<void> {
    for (;;) {
      const isFirst = this.#lives === 0 && !this.#environment.settlesFirst;
      const startLsn = isFirst ? this.#environment.initialLsn : await this.#settle(platform);
      if (startLsn !== null) await this.#serve(platform, startLsn);
      await platform.clock.sleep(RESTART_MS);
    }
  }

  #identity(): ProposerIdentity {
    return { ...TIMELINE, systemId: SYSTEM_ID, pgVersion: PG_VERSION_NUM, walSegmentSizeBytes: SEGMENT_SIZE };
  }

  #addresses(): { host: string; port: number }[] {
    return this.#environment.safekeepers.map((host) => ({ host, port: SAFEKEEPER_PORT }));
  }

  async #settle(platform: Platform): Promise<Lsn | null> {
    const { checker, trace, initialLsn } = this.#environment;
    const acknowledgedBefore = checker.acknowledgedLsn;
    try {
      const identity = { ...this.#identity(), systemId: 0n };
      const lsn = await settleLog({ identity, safekeepers: this.#addresses(), platform, log: this.#logger(), timeoutMs: SETTLE_TIMEOUT_MS });
      trace.add(this.name, `settled at ${lsn}`);
      checker.settled(this.name, lsn, acknowledgedBefore);
      return lsn === 0 ? initialLsn : lsn;
    } catch (error) {
      if (!isStrataError(error)) throw error;
      trace.add(this.name, `did not settle: ${error.message}`);
      return null;
    }
  }

  async #serve(platform: Platform, startLsn: Lsn): Promise<void> {
    const { checker, world, recordMaxBytes } = this.#environment;
    const random: SeededRandom = world.random.fork(`${this.name} life ${this.#lives++}`);
    const server: VirtualPostgres = new VirtualPostgres({
      platform, random, host: this.name, startLsn, recordMaxBytes, log: this.#logger(),
      previousLsn: checker.committed === null || startLsn === checker.committed.startLsn ? startLsn - 100 : lastRecordBefore(checker.committed, startLsn),
      onAcknowledged: (fromLsn, lsn) => this.#acknowledged(server, proposer, { fromLsn, lsn }),
    });
    await server.start();
    const network = withLocalServer(platform.network, this.name);
    const proposer: Proposer = new Proposer({
      identity: this.#identity(), safekeepers: this.#addresses(), platform: { ...platform, network }, log: this.#logger(),
      server: { socketPath: "/run/postgres", user: "postgres" }, walDirectory: "/pg_wal", startLsn,
    });
    this.#current = { proposer, server };
    proposer.start();
    proposer.stream();
    proposer.elected.catch(() => undefined);
    const working = this.#work(platform, server, random);
    const error = await proposer.failed;
    this.#environment.trace.add(this.name, `fenced: ${error.message}`);
    this.#current = null;
    await server.stop();
    await proposer.close();
    await working;
  }

  async #work(platform: Platform, server: VirtualPostgres, random: SeededRandom): Promise<void> {
    while (this.#current?.server === server) {
      if (!this.idle) server.work();
      await platform.clock.sleep(random.float() * this.#environment.workIntervalMs);
    }
  }

  #acknowledged(server: VirtualPostgres, proposer: Proposer, range: { fromLsn: Lsn; lsn: Lsn }): void {
    const { fromLsn, lsn } = range;
    const { checker, trace } = this.#environment;
    const { term } = proposer.status();
    trace.add(this.name, `acknowledged ${lsn} in term ${term}`);
    try {
      checker.acknowledge({ who: this.name, term, fromLsn, lsn, bytes: server.bytes(fromLsn, lsn) });
    } catch (violation) {
      checker.report(violation);
    }
  }

  /** Elections are known by what candidacies log. */
  #logger(): TraceLogger {
    const { trace, checker } = this.#environment;
    return new TraceLogger(trace, this.name, ({ who, message, fields }) => {
      if (message !== "elected") return;
      try {
        checker.elected(`${who}/${this.#incarnation}/${String(fields.mode)}`, Number(fields.term), parseLsn(String(fields.startLsn)));
      } catch (violation) {
        checker.report(violation);
      }
    });
  }
}
