/** One seed of the fast layer: random actions on a soup; at the end all breakages stop, and a compute must get its commits through. */
import { SeededRandom } from "../../../src/platform/virtual/seeded-random.ts";
import { Violation } from "../violation.ts";
import { partLogs } from "./initial-logs.ts";
import { pairOf, Soup, type Wire } from "./soup.ts";

export interface SoupResult {
  readonly violation: Violation | null;
  readonly steps: number;
  readonly tail: readonly string[];
  readonly fingerprint: string;
  readonly faults: ReadonlySet<string>;
}

interface Weights {
  readonly [action: string]: number;
}

const BASE: Weights = { deliver: 60, flush: 12, append: 16, write: 6, connect: 10, heartbeat: 2, publish: 2, gossip: 3, derive: 1, save: 0.5 };
/** What breaks, and how likely among all actions when the seed has chosen it. */
const BREAKAGE: Weights = {
  "connection-drop": 2, "duplicate-connection": 2, "power-loss": 1, "crash-between-effects": 2, "unsynced-tail-kept": 1, "compute-crash": 0.7, "term-bump": 0.3, "node-stays-down": 0.6,
};

export const SOUP_FAULT_KINDS: readonly string[] = Object.keys(BREAKAGE);
const TAIL = 40;
const RECOVERY_STEPS = 6000;

export function runSoup(seed: number, options: { steps?: number; print?: (line: string) => void } = {}): SoupResult {
  const run = new SoupRun(new SeededRandom(seed), options.print ?? null);
  let violation: Violation | null = null;
  try {
    run.chaos(options.steps ?? 500);
    run.recover();
  } catch (error) {
    violation = error instanceof Violation ? error : new Violation(`the run failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  }
  return { violation, steps: run.steps, tail: run.tail.slice(-TAIL), fingerprint: run.fingerprint, faults: run.faults };
}

class SoupRun {
  readonly #random: SeededRandom;
  readonly #print: ((line: string) => void) | null;
  readonly #soup: Soup;
  readonly #weights: [string, number][];
  readonly #total: number;
  readonly #separation: number;
  readonly #phase: number;
  readonly #isShort: boolean;
  steps = 0;
  tail: string[] = [];
  #hash = 0;
  readonly faults = new Set<string>();

  constructor(random: SeededRandom, print: ((line: string) => void) | null) {
    this.#random = random;
    this.#print = print;
    // Short runs on logs that have parted, in which only the connections' speed differs, reach corners that long ones blur.
    this.#isShort = random.chance(0.4);
    this.#soup = new Soup({ nodes: random.chance(0.8) ? 3 : random.fork("four").chance(0.5) ? 4 : 5, computes: random.chance(0.1) ? 1 : 2 + random.below(2), settleAtMajority: random.chance(0.5) });
    if (this.#isShort || random.chance(0.4)) partLogs(this.#soup, random);
    this.#soup.slowShare = 0.4 * random.float();
    this.#soup.stickiness = 0.5 + 0.48 * random.float();
    this.#separation = 0.5 + 0.5 * random.float();
    this.#phase = this.#isShort ? 15 + random.below(40) : 40 + random.below(120);
    const rate = 0.2 + 1.5 * random.float();
    const breakage = Object.entries(BREAKAGE).filter(() => !this.#isShort && random.chance(0.5)).map(([kind, weight]): [string, number] => [kind, weight * rate * random.float()]);
    // Commits that are derived are seldom wrong, and hide what a proposer does wrong.
    const derives = random.fork("derive").chance(0.3);
    this.#weights = [...Object.entries(BASE).filter(([action]) => derives || action !== "derive"), ...breakage];
    this.#total = this.#weights.reduce((sum, [, weight]) => sum + weight, 0);
  }

  get fingerprint(): string {
    return `${(this.#hash >>> 0).toString(16).padStart(8, "0")}-${this.steps}`;
  }

  chaos(most: number): void {
    const steps = this.#isShort ? Math.min(most, 150) : most;
    for (let step = 0; step < steps; step++) {
      // Who reaches whom changes now and then: logs part where nobody reaches everybody.
      if (step % this.#phase === 0) this.#regroup();
      // What is not possible now is drawn again.
      for (let tries = 0; tries < 8 && !this.#act(this.#draw()); tries++) continue;
    }
    this.#soup.avoid = new Set();
  }

  /** Who hardly reaches whom from now on: single pairs, and often all but one compute with a few nodes left to them. */
  #regroup(): void {
    const random = this.#random;
    const soup = this.#soup;
    const active = random.below(soup.computes.length);
    const avoid = new Set<number>();
    for (const { index } of soup.computes) {
      const share = index === active ? 0.3 * random.float() : this.#separation;
      for (const { id } of soup.nodes) if (random.chance(share)) avoid.add(pairOf(index, id));
    }
    soup.avoid = avoid;
    for (const wire of [...soup.wires]) {
      if (wire.computeEnd === "open" && soup.isAvoided(wire.compute, wire.node) && random.chance(0.8)) soup.closeAtCompute(wire, random.chance(0.5));
    }
    this.#note(`regroup ${[...avoid].join(",")}`);
  }

  #draw(): string {
    let point = this.#random.float() * this.#total;
    for (const [action, weight] of this.#weights) if ((point -= weight) < 0) return action;
    return "deliver";
  }

  #note(line: string): void {
    this.#hash = Bun.hash.xxHash32(line, this.#hash);
    this.tail.push(line);
    if (this.tail.length > 4 * TAIL) this.tail = this.tail.slice(-TAIL);
    this.#print?.(line);
  }

  #act(action: string): boolean {
    this.steps++;
    const what = ACTIONS[action](this.#soup, this.#random);
    if (what === null) return false;
    if (action in BREAKAGE) this.faults.add(action);
    const { checker, nodes } = this.#soup;
    this.#note(`${this.steps} ${action} ${what} | ${nodes.map(({ acceptor, log }) => (acceptor === null ? "down" : `${acceptor.persisted.term}:${log.flushed}/${log.writeLsn}c${acceptor.volatile.commitLsn}`)).join(" ")} | ack ${checker.acknowledgedLsn}`);
    return true;
  }

  /** No more breakage: everyone is up, one compute runs. */
  recover(): void {
    const soup = this.#soup;
    soup.slowShare = 0;
    soup.stickiness = 0;
    for (const node of soup.nodes) if (node.acceptor === null) soup.restart(node.id);
    for (const compute of soup.computes) {
      for (const wire of [...soup.wires]) if (wire.compute === compute.index) soup.closeAtCompute(wire, true);
    }
    soup.computes.length = 1;
    soup.restartCompute(0);
    const before = soup.checker.acknowledgedLsn;
    this.#note("recovery");
    for (let step = 0; step < RECOVERY_STEPS; step++) {
      const choice = this.#random.below(10);
      this.#act(choice < 5 ? "deliver" : choice < 6 ? "flush" : choice < 7 ? "append" : choice < 8 ? "connect" : choice < 9 ? "heartbeat" : "write");
      if (step % 16 !== 0) continue;
      const { acknowledgedLsn } = soup.checker;
      if (acknowledgedLsn > before && soup.nodes.every(({ log }) => log.flushed >= before)) return;
    }
    throw new Violation(`no progress in ${RECOVERY_STEPS} steps after everything healed: acknowledged ${soup.checker.acknowledgedLsn}, before ${before}`);
  }
}

type Action = (soup: Soup, random: SeededRandom) => string | null;

function choose<T>(items: readonly T[], random: SeededRandom): T | undefined {
  return items[random.below(items.length)];
}

function onWire(select: (soup: Soup, wire: Wire) => boolean, act: (soup: Soup, wire: Wire, random: SeededRandom) => void): Action {
  return (soup, random) => {
    const wire = choose(soup.wires.filter((candidate) => select(soup, candidate)), random);
    if (wire === undefined) return null;
    const name = `${wire.compute}>${wire.node}`;
    act(soup, wire, random);
    return name;
  };
}

function onNode(up: boolean, act: (soup: Soup, id: number, random: SeededRandom) => void): Action {
  return (soup, random) => {
    const node = choose(soup.nodes.filter(({ acceptor }) => (acceptor !== null) === up), random);
    if (node === undefined) return null;
    act(soup, node.id, random);
    return `node ${node.id}`;
  };
}

/** Half of the connections notice at once; the others keep waiting until they are closed by a later action. */
function crashed(soup: Soup, id: number, aftermath: { random: SeededRandom; stays: boolean }): void {
  const { random, stays } = aftermath;
  for (const wire of [...soup.wires]) if (wire.node === id && random.chance(0.5)) soup.closeAtCompute(wire, true);
  if (!stays) soup.restart(id);
}

const ACTIONS: Readonly<Record<string, Action>> = {
  deliver: (soup, random) => {
    const wire = choose(soup.wires.filter(({ toNode, toCompute }) => toNode.length + toCompute.length > 0), random);
    // What is left on a connection that its compute has given up comes late.
    if (wire === undefined || (wire.computeEnd === "closed" && random.chance(0.8))) return null;
    const toNode = wire.toNode.length > 0 && (wire.toCompute.length === 0 || random.chance(0.5));
    if (toNode && wire.slow && random.chance(soup.stickiness)) return null;
    const message = toNode ? wire.toNode[0] : wire.toCompute[0];
    if (toNode) soup.deliverToNode(wire);
    else soup.deliverToCompute(wire);
    return `${wire.compute}${toNode ? ">" : "<"}${wire.node} ${message.kind}`;
  },
  flush: onWire((_, { dirty }) => dirty, (soup, wire) => soup.flush(wire)),
  append: onWire((soup, wire) => soup.hasAppend(wire), (soup, wire, random) => soup.sendAppend(wire, 1 + (random.chance(0.5) ? 0 : random.below(4)))),
  write: (soup, random) => {
    const compute = choose(soup.computes.filter(({ mode, endLsn, acknowledgedLsn }) => mode === "run" && endLsn - acknowledgedLsn < 12), random);
    compute?.write(1 + random.below(3));
    return compute === undefined ? null : `by ${compute.index}`;
  },
  connect: (soup, random) => {
    const [compute, node] = [random.below(soup.computes.length), random.below(soup.nodes.length)];
    if (soup.nodes[node].acceptor === null || (soup.isAvoided(compute, node) && random.chance(0.97))) return null;
    const old = soup.wireOf(compute, node);
    // A half-open one is given up in time.
    if (old !== undefined && old.nodeEnd === "closed") soup.closeAtCompute(old, true);
    if (soup.wireOf(compute, node) !== undefined) return null;
    soup.connect(compute, node, random.chance(soup.slowShare));
    return `${compute}>${node}`;
  },
  heartbeat: (soup, random) => {
    choose(soup.computes, random)?.core.heartbeat();
    return "";
  },
  publish: onNode(true, (soup, id) => soup.publish(id)),
  gossip: onNode(true, (soup, id, random) => {
    const gossip = choose(soup.gossip, random);
    if (gossip !== undefined) soup.hearGossip(id, gossip);
  }),
  derive: onNode(true, (soup, id) => soup.deriveCommit(id)),
  save: onNode(true, (soup, id) => soup.saveControlFile(id)),
  "connection-drop": onWire((_, { computeEnd }) => computeEnd === "open", (soup, wire) => soup.closeAtCompute(wire, true)),
  "duplicate-connection": onWire((_, { computeEnd, toNode }) => computeEnd === "open" && toNode.length > 0, (soup, wire) => soup.closeAtCompute(wire, false)),
  "power-loss": onNode(true, (soup, id, random) => {
    soup.crash(id, 0);
    crashed(soup, id, { random, stays: false });
  }),
  "unsynced-tail-kept": onNode(true, (soup, id, random) => {
    soup.crash(id, 1 + random.below(4));
    crashed(soup, id, { random, stays: false });
  }),
  "node-stays-down": (soup, random) => {
    const down = soup.nodes.filter(({ acceptor }) => acceptor === null);
    if (down.length > 0 && random.chance(0.7)) {
      soup.restart(down[0].id);
      return `node ${down[0].id} is back`;
    }
    return onNode(true, (inside, id) => {
      inside.crash(id, 0);
      crashed(inside, id, { random, stays: true });
    })(soup, random);
  },
  "crash-between-effects": (soup, random) => {
    const wire = choose(soup.wires.filter(({ toNode, nodeEnd }) => toNode.length > 0 && nodeEnd === "open"), random);
    if (wire === undefined) return null;
    const message = wire.toNode[0];
    const { node } = wire;
    soup.deliverToNode(wire, random.below(4));
    if (soup.nodes[node].acceptor === null) crashed(soup, node, { random, stays: false });
    return `${wire.compute}>${node} ${message.kind}`;
  },
  "compute-crash": (soup, random) => {
    const index = random.below(soup.computes.length);
    soup.restartCompute(index);
    return `${index}`;
  },
  "term-bump": onNode(true, (soup, id) => soup.bumpTerm(id)),
};
