/**
 * One seed of the whole WAL service: 3 to 5 safekeepers (the shipping role), 1 to 3 computes (the shipping settlement and
 * proposer over a server that writes real WAL), a reader and the broker's registry in one virtual world. For a while faults
 * of the seed's choice happen; then everything heals, and the service must come back with all it ever acknowledged.
 */
import { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import { VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import { Violation } from "../violation.ts";
import { Checker } from "./checker.ts";
import { FAULT_KINDS, Faults } from "./faults.ts";
import { loseEarly, type Promised } from "./lose-early.ts";
import { SimCompute } from "./sim-compute.ts";
import { SimReader } from "./sim-reader.ts";
import { SimSafekeeper } from "./sim-safekeeper.ts";
import { Trace } from "./trace.ts";
import { VirtualBroker } from "./virtual-broker.ts";
import { SEGMENT_SIZE } from "./virtual-postgres.ts";

export interface WorldResult {
  readonly violation: Violation | null;
  readonly steps: number;
  /** Of everything that happened. */
  readonly fingerprint: string;
  readonly tail: readonly string[];
  readonly faults: ReadonlySet<string>;
  readonly committedBytes: number;
  readonly acknowledgements: number;
  readonly elections: number;
  readonly readBytes: number;
  readonly virtualMs: number;
}

interface Scenario {
  safekeepers: number;
  readonly computes: number;
  durationMs: number;
  readonly faultKinds: readonly string[];
  readonly faultIntervalMs: number;
  readonly initialLsn: number;
  readonly recordMaxBytes: number;
  readonly workIntervalMs: number;
  readonly peerRecovery: boolean;
  readonly controlFileSaveIntervalMs: number;
  readonly pageserver: boolean;
  readonly startsBadly: boolean;
  /** Whoever made the timeline told the safekeepers of it; else they find out by themselves that it is new, which takes a while. */
  readonly told: boolean;
  /** The only fault is this one. */
  readonly losesEarly: Promised | null;
}

const RECOVERY_LIMIT_MS = 90_000;
const LOST_DISK_SHARE = 0.06;
const LOST_EARLY_SHARE = 0.06;
/** So long nothing happens on a timeline that nobody was told of. */
const UNTOLD_MS = 7000;

function scenarioOf(random: SeededRandom): Scenario {
  const kinds = FAULT_KINDS.filter(() => random.chance(0.35));
  // Often near the end of a segment: crossings are where the files change.
  const offset = random.chance(0.35) ? SEGMENT_SIZE - 8192 * (1 + random.below(6)) + 4096 : 0x28 + 8 * random.below(1000);
  const scenario: Scenario = {
    safekeepers: random.chance(0.8) ? 3 : 5,
    computes: 1 + random.below(3),
    durationMs: 2000 + random.below(4000),
    faultKinds: kinds.length === 0 ? ["power-loss"] : kinds,
    faultIntervalMs: 60 + random.below(500),
    initialLsn: SEGMENT_SIZE * (1 + random.below(5)) + offset,
    recordMaxBytes: random.chance(0.05) ? 300_000 : random.chance(0.3) ? 30_000 : 3000,
    workIntervalMs: 30 + random.below(250),
    peerRecovery: random.chance(0.5),
    controlFileSaveIntervalMs: random.chance(0.5) ? 500 : 300_000,
    pageserver: random.chance(0.5),
    startsBadly: random.chance(0.2),
    told: random.chance(0.9),
    losesEarly: null,
  };
  if (random.chance(LOST_EARLY_SHARE)) return { ...scenario, safekeepers: 3, computes: 2, faultKinds: [], durationMs: 25_000, startsBadly: false, told: true, pageserver: false, peerRecovery: false, losesEarly: random.chance(0.5) ? "vote" : "wal" };
  if (!scenario.told) scenario.durationMs += UNTOLD_MS;
  // Four now and then: a majority of them is three.
  if (scenario.safekeepers === 5 && scenario.durationMs % 2 === 0) scenario.safekeepers = 4;
  // A lost disk is filled again only after a while, in which not much else must happen.
  return random.chance(LOST_DISK_SHARE) ? { ...scenario, faultKinds: ["disk-lost"], faultIntervalMs: 1000, durationMs: 22_000, pageserver: false, peerRecovery: random.chance(0.2) } : scenario;
}

export function runWorld(seed: number, options: { print?: (line: string) => void } = {}): WorldResult {
  const world = new VirtualWorld({ seed, shuffleTimers: true });
  const trace = new Trace(() => world.clock.monotonicMs(), options.print ?? null);
  const cluster = new Cluster(world, trace, scenarioOf(new SeededRandom(seed).fork("scenario")));
  let violation: Violation | null = null;
  try {
    world.clock.run(() => cluster.run(), { afterStep: () => cluster.look(), maxSteps: 2_000_000 });
  } catch (error) {
    violation = error instanceof Violation ? error : new Violation(`the run failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  }
  const { checker, faults } = cluster;
  trace.mix(`${world.clock.steps}`);
  return {
    violation, steps: world.clock.steps, fingerprint: trace.fingerprint, tail: trace.tail, faults: faults.happened, virtualMs: world.clock.monotonicMs(),
    committedBytes: checker.committed === null ? 0 : checker.committed.endLsn - checker.committed.startLsn,
    acknowledgements: checker.acknowledgements, elections: checker.elections, readBytes: checker.readBytes,
  };
}

class Cluster {
  readonly checker: Checker;
  readonly faults: Faults;
  readonly reader: SimReader;
  readonly #world: VirtualWorld;
  readonly #trace: Trace;
  readonly #scenario: Scenario;
  readonly #random: SeededRandom;
  readonly #safekeepers: SimSafekeeper[];
  readonly #computes: SimCompute[];
  readonly #broker: VirtualBroker;

  constructor(world: VirtualWorld, trace: Trace, scenario: Scenario) {
    this.#world = world;
    this.#trace = trace;
    this.#scenario = scenario;
    this.#random = world.random.fork("cluster");
    this.#broker = new VirtualBroker(world.random.fork("broker"));
    this.#safekeepers = Array.from({ length: scenario.safekeepers }, (_, index) => new SimSafekeeper({
      world, trace, broker: this.#broker, peers: () => this.#safekeepers, onViolation: (violation) => this.checker.report(violation),
      told: scenario.told, settings: { peerRecovery: scenario.peerRecovery, controlFileSaveIntervalMs: scenario.controlFileSaveIntervalMs, walSendersKeepHorizon: false },
    }, index + 1));
    this.checker = new Checker(this.#safekeepers);
    const names = this.#safekeepers.map(({ name }) => name);
    const { initialLsn, recordMaxBytes, workIntervalMs } = scenario;
    this.#computes = Array.from({ length: scenario.computes }, (_, index) => new SimCompute({ world, trace, checker: this.checker, safekeepers: names, initialLsn, recordMaxBytes, workIntervalMs, settlesFirst: scenario.losesEarly === null }, index + 1));
    this.reader = new SimReader({ world, trace, checker: this.checker, safekeepers: this.#safekeepers, pageserver: scenario.pageserver });
    const { checker, reader } = this;
    this.faults = new Faults({ world, random: world.random.fork("faults"), trace, checker, safekeepers: this.#safekeepers, computes: this.#computes, reader, broker: this.#broker });
  }

  look(): void {
    this.checker.look();
    this.faults.onStep?.();
  }

  async run(): Promise<void> {
    const { clock } = this.#world;
    this.#trace.add("world", JSON.stringify(this.#scenario));
    for (const safekeeper of this.#safekeepers) safekeeper.start();
    this.reader.start();
    this.#computes[0].start();
    // The very first start is a time like any other.
    if (this.#scenario.startsBadly) clock.after(this.#random.float() * 10, () => this.faults.happen("power-loss-everywhere"));
    const endMs = clock.monotonicMs() + this.#scenario.durationMs;
    const { losesEarly } = this.#scenario;
    if (losesEarly !== null) {
      loseEarly(this.faults, losesEarly);
      await clock.sleep(this.#scenario.durationMs);
    }
    while (clock.monotonicMs() < endMs) {
      await clock.sleep(this.#random.float() * 2 * this.#scenario.faultIntervalMs);
      this.faults.happen(this.faults.pick(this.#scenario.faultKinds));
    }
    await this.#recover();
  }

  /** Everything heals; one compute is left, and must get to work with all that was acknowledged. */
  async #recover(): Promise<void> {
    const { clock } = this.#world;
    this.#trace.add("world", "everything heals");
    this.faults.healAll();
    for (const compute of this.#computes) compute.stop("kill");
    // One whose timeline was being made or copied while its disk failed opens it only at a start.
    for (const safekeeper of this.#safekeepers) if (safekeeper.timeline === null && (!safekeeper.gone || safekeeper.isDeleted)) safekeeper.start();
    for (const safekeeper of this.#safekeepers) if (!safekeeper.isUp && !safekeeper.gone) safekeeper.start();
    const [compute] = this.#computes;
    compute.idle = false;
    compute.start();
    const before = this.checker.acknowledgements;
    const limitMs = clock.monotonicMs() + RECOVERY_LIMIT_MS;
    while (this.checker.acknowledgements < before + 3) await this.#wait(limitMs, "no commit was acknowledged after everything healed");
    compute.idle = true;
    // Bytes that nobody can get any more may have been on a damaged disk alone: then a majority is all there is to expect.
    const expected = this.#safekeepers.filter(({ gone }) => !gone);
    const needed = this.#safekeepers.some(({ damaged }) => damaged) ? Math.floor(this.#safekeepers.length / 2) + 1 : expected.length;
    const isWhole = ({ timeline }: SimSafekeeper): boolean => timeline !== null && !timeline.state.recovering && timeline.acceptor.flushLsn >= this.checker.acknowledgedLsn;
    const reached = (): number => expected.filter(isWhole).length;
    while (reached() < needed) await this.#wait(limitMs, "a safekeeper did not catch up after everything healed");
    const target = this.checker.acknowledgedLsn;
    while (this.reader.positionLsn < target && needed === expected.length) await this.#wait(limitMs, "the reader did not get to the end of the log");
    this.#trace.add("world", `done at ${target}`);
  }

  async #wait(limitMs: number, otherwise: string): Promise<void> {
    const { clock } = this.#world;
    if (clock.monotonicMs() > limitMs) throw new Violation(`${otherwise} (${RECOVERY_LIMIT_MS / 1000} s)`);
    await clock.sleep(50);
  }
}
