/**
 * A disk that is lost before the timeline has any acknowledged WAL, by the one safekeeper on which its first proposer counts
 * beside one that it does not reach for a while: with a vote on it, or with the first WAL. A second proposer reaches the empty
 * disk and the third safekeeper, and no others.
 */
import type { Faults } from "./faults.ts";
import type { SimCompute } from "./sim-compute.ts";
import type { SimSafekeeper } from "./sim-safekeeper.ts";

interface Plot {
  readonly first: SimCompute;
  readonly second: SimCompute;
  readonly lost: SimSafekeeper;
  /** Hears of the first proposer late, and never of the second. */
  readonly late: SimSafekeeper;
  readonly third: SimSafekeeper;
}

/** What has been promised when the disk is lost. */
export type Promised = "vote" | "wal";

/** Longer than an empty one stays away. */
const SECOND_WITHIN_MS = 11_000;

export function loseEarly(faults: Faults, promised: Promised): void {
  const { computes: [first, second], safekeepers, random } = faults.stage;
  const turn = random.below(3);
  const [lost, late, third] = [0, 1, 2].map((index) => safekeepers[(index + turn) % 3]);
  const plot: Plot = { first, second, lost, late, third };
  cut(faults, [[second, late]]);
  const reached = promised === "vote" ? () => slotOf(plot)?.state === "voting" : () => faults.stage.checker.elections > 0;
  when(faults, reached, () => {
    cut(faults, [[second, late], [first, late], [first, third]]);
    when(faults, promised === "vote" ? () => slotOf(plot)?.state === "voted" : () => hasWal(lost) && (slotOf(plot)?.flushLsn ?? 0) >= (lost.timeline?.acceptor.flushLsn ?? 0), () => takeDisk(faults, plot));
  });
}

/** What the first proposer thinks of the one whose disk will be lost. */
function slotOf({ first, lost }: Plot): { readonly state: string; readonly flushLsn: number } | undefined {
  return first.current?.proposer.status().safekeepers.find(({ address }) => address.startsWith(`${lost.name}:`));
}

function hasWal({ timeline }: SimSafekeeper): boolean {
  return timeline !== null && timeline.state.timelineStartLsn > 0 && timeline.acceptor.flushLsn > timeline.state.timelineStartLsn;
}

function takeDisk(faults: Faults, plot: Plot): void {
  const { first, second, lost, late, third } = plot;
  const { stage } = faults;
  if (hasWal(late) || hasWal(third)) return;
  stage.trace.add("FAULT", `disk-lost: ${lost.name}, before there is WAL elsewhere`);
  faults.happened.add("disk-lost-early");
  cut(faults, [[second, late], [first, late], [first, third], [first, lost]]);
  lost.wipe();
  lost.start();
  second.start();
  const untilMs = stage.world.clock.monotonicMs() + stage.random.float() * 2 * SECOND_WITHIN_MS;
  const before = stage.checker.elections;
  when(faults, () => stage.checker.elections > before || stage.world.clock.monotonicMs() > untilMs, () => cut(faults, [[second, late], [first, third], [first, lost]]));
}

/** These, and no others, do not reach each other. */
function cut({ stage: { world } }: Faults, pairs: readonly (readonly [{ readonly name: string }, { readonly name: string }])[]): void {
  world.network.heal();
  for (const [a, b] of pairs) world.network.partition(a.name, b.name);
}

function when(faults: Faults, condition: () => boolean, action: () => void): void {
  faults.atEnd(() => faults.stage.world.network.heal());
  faults.onStep = () => {
    if (!faults.over && !condition()) return;
    faults.onStep = null;
    if (!faults.over) action();
  };
}
