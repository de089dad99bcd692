/**
 * What can go wrong, each by a name. A run draws some kinds from its seed and lets them happen at random moments; each heals by
 * itself after a while, all of them at the end.
 *
 * At most a minority of safekeepers is taken out for good (a deleted timeline, flipped bits); of the rest any number may fail.
 */
import type { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import { CALM } from "../../../src/platform/virtual/virtual-network.ts";
import type { VirtualMachine, VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import { baseDisk, failingDisk, type DiskTrouble } from "./disk-faults.ts";
import { flipBit } from "./flip-bit.ts";
import { loseDisk, pull } from "./lose-disk.ts";
import type { Checker } from "./checker.ts";
import type { SimCompute } from "./sim-compute.ts";
import type { SimReader } from "./sim-reader.ts";
import type { SimSafekeeper } from "./sim-safekeeper.ts";
import type { Trace } from "./trace.ts";
import type { VirtualBroker } from "./virtual-broker.ts";

export interface Stage {
  readonly world: VirtualWorld;
  readonly random: SeededRandom;
  readonly trace: Trace;
  readonly checker: Checker;
  readonly safekeepers: readonly SimSafekeeper[];
  readonly computes: readonly SimCompute[];
  readonly reader: SimReader;
  readonly broker: VirtualBroker;
}

type Fault = (faults: Faults) => string | null;

export class Faults {
  readonly stage: Stage;
  /** What to undo at the end. */
  readonly #heal = new Set<() => void>();
  readonly happened = new Set<string>();
  over = false;
  /** One safekeeper is being left behind, and another is to lose its disk. */
  isLosingDisk = false;
  onStep: (() => void) | null = null;

  constructor(stage: Stage) {
    this.stage = stage;
    for (const { machine } of stage.safekeepers) machine.faults = baseDisk(stage.random);
  }

  happen(kind: string): void {
    const what = FAULTS[kind](this);
    if (what === null) return;
    this.happened.add(kind);
    this.stage.trace.add("FAULT", `${kind}: ${what}`);
  }

  healAll(): void {
    this.over = true;
    for (const undo of [...this.#heal]) undo();
  }

  /** Undoes after a random time, at the latest at the end. */
  later(maxMs: number, undo: () => void): void {
    const once = (): void => {
      if (this.#heal.delete(once)) undo();
    };
    this.#heal.add(once);
    this.stage.world.clock.after(this.stage.random.float() * maxMs, once);
  }

  atEnd(undo: () => void): void {
    this.#heal.add(undo);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.stage.random.below(items.length)];
  }

  /** One that takes part. */
  safekeeper(): SimSafekeeper | null {
    const candidates = this.stage.safekeepers.filter((safekeeper) => safekeeper.isUp && !safekeeper.gone);
    return candidates.length === 0 ? null : this.pick(candidates);
  }

  compute(): SimCompute | null {
    const up = this.stage.computes.filter((compute) => compute.isUp);
    return up.length === 0 ? null : this.pick(up);
  }

  /** Whether this one may be lost for good: a majority that has WAL must be left, for who has none does not count in an election. */
  maySpare(safekeeper: SimSafekeeper): boolean {
    const left = this.stage.safekeepers.filter((other) => other !== safekeeper && !other.gone && !other.damaged && other.wipedAt === null && other.seen?.state.recovering === false && (other.seen?.flushLsn ?? 0) > 0);
    return 2 * left.length > this.stage.safekeepers.length;
  }

  /** Any two machines that talk. */
  pair(): readonly [string, string] {
    const a = this.pick(this.stage.safekeepers).name;
    const others = [...this.stage.computes, ...this.stage.safekeepers, this.stage.reader].map(({ name }) => name).filter((name) => name !== a);
    return [a, this.pick(others)];
  }

  /** Also of one that is starting. */
  powerBack(safekeeper: SimSafekeeper, maxMs: number): void {
    this.later(maxMs, () => {
      if (!safekeeper.isUp && !safekeeper.gone) safekeeper.start();
    });
  }

  /** The disk behaves so for a while. */
  diskTrouble(safekeeper: SimSafekeeper, trouble: DiskTrouble): string {
    const { random } = this.stage;
    safekeeper.machine.faults = failingDisk(random, trouble);
    safekeeper.excuse = true;
    this.later(2000, () => {
      safekeeper.machine.faults = baseDisk(random);
      safekeeper.excuse = false;
      // A store that failed stays closed until a restart, which is the operator's.
      if (safekeeper.isUp && !safekeeper.gone && (safekeeper.timeline === null || safekeeper.timeline.store.failure !== null)) safekeeper.restartSoon();
    });
    return safekeeper.name;
  }

  /** Power fails while the next such operation is under way. */
  crashDuring(safekeeper: SimSafekeeper, kind: "write" | "sync" | "rename" | "sync-directory" | "truncate"): string {
    const { random, world } = this.stage;
    const base = baseDisk(random);
    let armed = true;
    safekeeper.machine.faults = {
      latencyMs: (operation) => {
        if (!armed || operation.kind !== kind) return base.latencyMs?.(operation) ?? 0;
        armed = false;
        world.clock.after(0.01, () => {
          if (!safekeeper.isUp) return;
          this.stage.trace.add("FAULT", `power of ${safekeeper.name} fails during ${kind} of ${operation.path.slice(-32)}`);
          safekeeper.crash();
          this.powerBack(safekeeper, 2000);
        });
        return 5;
      },
    };
    this.later(3000, () => (safekeeper.machine.faults = baseDisk(random)));
    return `${safekeeper.name} ${kind}`;
  }

  pause(machine: VirtualMachine, maxMs: number): string {
    if (machine.isPaused) return `${machine.name} again`;
    machine.pause();
    this.later(maxMs, () => {
      if (machine.isPaused) machine.resume();
    });
    return machine.name;
  }
}

/** A fault that hits a safekeeper that takes part. */
function onSafekeeper(hit: (faults: Faults, safekeeper: SimSafekeeper) => string | null): Fault {
  return (faults) => {
    const safekeeper = faults.safekeeper();
    return safekeeper === null ? null : hit(faults, safekeeper);
  };
}

function powerLoss(faults: Faults, safekeeper: SimSafekeeper): string {
  safekeeper.crash();
  faults.powerBack(safekeeper, 3000);
  return safekeeper.name;
}

export const FAULTS: Readonly<Record<string, Fault>> = {
  "message-delay": (faults) => {
    const { network } = faults.stage.world;
    network.conditions = { ...CALM, maxDelayMs: 1 + faults.stage.random.below(150), slowShare: 0.1 };
    faults.later(2000, () => (network.conditions = CALM));
    return `up to ${network.conditions.maxDelayMs} ms`;
  },
  "connection-resets": (faults) => {
    const { network } = faults.stage.world;
    network.conditions = { ...network.conditions, resetShare: 0.02 };
    faults.later(1500, () => (network.conditions = { ...network.conditions, resetShare: 0 }));
    return "one piece in 50";
  },
  "connection-drop": (faults) => {
    const [a, b] = faults.pair();
    faults.stage.world.network.resetBetween(a, b);
    return `${a}, ${b}`;
  },
  "duplicate-connection": (faults) => {
    const compute = faults.compute();
    const safekeeper = faults.safekeeper();
    if (compute === null || safekeeper === null) return null;
    faults.stage.world.network.forget(compute.name, safekeeper.name);
    return `${compute.name} to ${safekeeper.name}`;
  },
  "reorder-across-connections": (faults) => {
    const compute = faults.compute();
    const safekeeper = faults.safekeeper();
    if (compute === null || safekeeper === null) return null;
    const { world } = faults.stage;
    // What is on the way on the old connection comes after what the new one brings.
    world.network.conditions = { ...CALM, minDelayMs: 150, maxDelayMs: 600 };
    world.clock.after(50, () => {
      world.network.forget(compute.name, safekeeper.name);
      world.network.conditions = CALM;
    });
    return `${compute.name} to ${safekeeper.name}`;
  },
  partition: (faults) => {
    const { network } = faults.stage.world;
    const names = [...faults.stage.safekeepers, ...faults.stage.computes].map(({ name }) => name);
    const side = new Set(names.filter(() => faults.stage.random.chance(0.4)));
    for (const a of side) for (const b of names) if (!side.has(b)) network.partition(a, b);
    faults.later(3000, () => network.heal());
    return [...side].join(", ");
  },
  "one-way-partition": (faults) => {
    const { network } = faults.stage.world;
    const [a, b] = faults.pair();
    if (faults.stage.random.chance(0.5)) network.block(a, b);
    else network.block(b, a);
    faults.later(3000, () => network.heal());
    return `${a}, ${b}`;
  },
  "power-loss": onSafekeeper(powerLoss),
  "power-loss-everywhere": (faults) => {
    const up = faults.stage.safekeepers.filter((safekeeper) => !safekeeper.gone);
    return up.map((safekeeper) => powerLoss(faults, safekeeper)).join(", ");
  },
  "torn-write": onSafekeeper((faults, safekeeper) => faults.crashDuring(safekeeper, faults.pick(["write", "sync", "truncate"]))),
  "rename-not-durable": onSafekeeper((faults, safekeeper) => faults.crashDuring(safekeeper, faults.pick(["rename", "sync-directory"]))),
  "io-error": onSafekeeper((faults, safekeeper) => faults.diskTrouble(safekeeper, { error: "io-error", kinds: ["read", "write", "open", "rename", "truncate"], share: 0.2 })),
  "fsync-error": onSafekeeper((faults, safekeeper) => faults.diskTrouble(safekeeper, { error: "io-error", kinds: ["sync", "sync-directory"], share: 0.3 })),
  "disk-full": onSafekeeper((faults, safekeeper) => faults.diskTrouble(safekeeper, { error: "disk-full", kinds: ["write", "truncate", "open"], share: 0.5 })),
  "slow-fsync": onSafekeeper((faults, safekeeper) => faults.diskTrouble(safekeeper, { error: null, kinds: [], share: 0, syncMaxMs: 300 })),
  "bit-flip": (faults) => flipBit(faults),
  "disk-lost": onSafekeeper(loseDisk),
  "timeline-pull": pull,
  "process-pause": onSafekeeper((faults, safekeeper) => faults.pause(safekeeper.machine, 4000)),
  "compute-pause": (faults) => {
    const compute = faults.compute();
    return compute === null ? null : faults.pause(compute.machine, 6000);
  },
  "clock-skew": (faults) => {
    const { machine } = faults.pick<{ machine: VirtualMachine }>([...faults.stage.safekeepers, ...faults.stage.computes]);
    machine.clockSkewMs = (faults.stage.random.float() - 0.5) * 7_200_000;
    return machine.name;
  },
  "process-kill": onSafekeeper((faults, safekeeper) => {
    safekeeper.kill();
    faults.powerBack(safekeeper, 1500);
    return safekeeper.name;
  }),
  "orderly-restart": onSafekeeper((_, safekeeper) => {
    void safekeeper.restart();
    return safekeeper.name;
  }),
  "timeline-delete": onSafekeeper((faults, safekeeper) => {
    if (!faults.maySpare(safekeeper) || safekeeper.timeline === null) return null;
    void safekeeper.deleteTimeline();
    return safekeeper.name;
  }),
  "term-bump": onSafekeeper((_, safekeeper) => {
    const { timeline } = safekeeper;
    // Before anybody has WAL it would look to the others as if someone might have been elected.
    if (timeline === null || timeline.state.timelineStartLsn === 0) return null;
    timeline.run("term bump", (acceptor) => acceptor.bumpTerm(null)).catch(() => undefined);
    return safekeeper.name;
  }),
  "second-compute": (faults) => {
    const idle = faults.stage.computes.filter((compute) => !compute.isUp);
    if (idle.length === 0) return null;
    const compute = faults.pick(idle);
    compute.start();
    return compute.name;
  },
  "compute-crash": (faults) => {
    const compute = faults.compute();
    if (compute === null) return null;
    compute.stop(faults.pick(["crash", "kill"] as const));
    faults.later(2000, () => compute.start());
    return compute.name;
  },
  "broker-outage": (faults) => {
    faults.stage.broker.stop();
    faults.later(3000, () => faults.stage.broker.start());
    return "away";
  },
  "reader-restart": (faults) => (faults.stage.reader.restart(), "reader"),
};

export const FAULT_KINDS: readonly string[] = Object.keys(FAULTS);
