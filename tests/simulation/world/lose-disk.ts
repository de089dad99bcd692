/**
 * A disk that is lost with all that was acknowledged on it, and an empty one in its place. At worst one of the others is far behind
 * then, and the rest fail as soon as the empty one is taking WAL in again: the two of them would make a majority that lacks
 * what was committed.
 */
import { isStrataError } from "../../../src/kit/errors.ts";
import type { Faults } from "./faults.ts";
import type { SimSafekeeper } from "./sim-safekeeper.ts";

/** Long enough for the empty one to be let in again. */
const WATCH_MS = 12_000;
const AWAY_MS = 12_000;

export function loseDisk(faults: Faults, safekeeper: SimSafekeeper): string | null {
  const { stage } = faults;
  // Where the reader lets WAL go, only a copy could fill an empty disk: `timeline-pull`.
  if (safekeeper.wipedAt !== null || stage.reader.releasesWal || stage.checker.acknowledgements === 0 || !faults.maySpare(safekeeper)) return null;
  if (faults.isLosingDisk || stage.random.chance(0.2)) return lose(faults, safekeeper);
  faults.isLosingDisk = true;
  const laggard = faults.pick(stage.safekeepers.filter((other) => other !== safekeeper));
  for (const { name } of stage.computes) stage.world.network.partition(name, laggard.name);
  faults.atEnd(() => stage.world.network.heal());
  stage.world.clock.after(stage.random.float() * 1000, () => {
    if (faults.over || safekeeper.gone || !faults.maySpare(safekeeper)) return;
    stage.trace.add("FAULT", `disk-lost: ${lose(faults, safekeeper)}`);
    const untilMs = stage.world.clock.monotonicMs() + WATCH_MS;
    faults.onStep = () => watch(faults, { safekeeper, laggard, untilMs });
  });
  return `${safekeeper.name} soon; ${laggard.name} is left behind`;
}

function lose(faults: Faults, safekeeper: SimSafekeeper): string {
  safekeeper.wipe();
  faults.powerBack(safekeeper, 1000);
  return safekeeper.name;
}

/** Of a deleted timeline, or one on a lost disk, from the most advanced peer that is there. */
export function pull(faults: Faults): string | null {
  const { safekeepers, checker } = faults.stage;
  const needy = safekeepers.find((safekeeper) => safekeeper.isUp && safekeeper.timeline === null && (safekeeper.isDeleted || safekeeper.wipedAt !== null));
  const donors = safekeepers.filter((other) => other !== needy && other.isUp && !other.damaged && !other.gone && (other.timeline?.state.timelineStartLsn ?? 0) > 0);
  if (needy === undefined || donors.length === 0) return null;
  const donor = donors.reduce((best, other) => (isAhead(other, best) ? other : best));
  needy.pull(donor).catch((error: unknown) => {
    if (!isStrataError(error)) checker.report(error);
  });
  return `${needy.name} from ${donor.name}`;
}

function isAhead(a: SimSafekeeper, b: SimSafekeeper): boolean {
  const position = ({ timeline }: SimSafekeeper): readonly [number, number] => [timeline?.acceptor.lastLogTerm ?? 0, timeline?.acceptor.flushLsn ?? 0];
  const [[termA, flushA], [termB, flushB]] = [position(a), position(b)];
  return termA !== termB ? termA > termB : flushA > flushB;
}

interface Watched {
  readonly safekeeper: SimSafekeeper;
  readonly laggard: SimSafekeeper;
  readonly untilMs: number;
}

/** After every step, until the empty one follows a proposer: it has a part of the log then. */
function watch(faults: Faults, watched: Watched): void {
  const { safekeeper, untilMs } = watched;
  const { world, random } = faults.stage;
  if (!faults.over && world.clock.monotonicMs() < untilMs && (safekeeper.timeline?.state.timelineStartLsn ?? 0) === 0) return;
  faults.onStep = null;
  if (faults.over || world.clock.monotonicMs() >= untilMs) return;
  const waitsForVote = random.chance(0.5);
  if (!waitsForVote) failOthers(faults, watched);
  // It keeps what it had synced, perhaps half of the log.
  safekeeper.crash();
  faults.powerBack(safekeeper, 100);
  restartComputes(faults);
  const voteWatched = { ...watched, untilMs: world.clock.monotonicMs() + WATCH_MS };
  if (waitsForVote) faults.onStep = () => watchVote(faults, voteWatched);
}

/** After every step, until the half-filled one has let a new proposer in, which asks for its vote next. */
function watchVote(faults: Faults, watched: Watched): void {
  const { safekeeper, untilMs } = watched;
  const isOver = faults.over || faults.stage.world.clock.monotonicMs() >= untilMs;
  if (!isOver && safekeeper.timeline?.receivers.all.some(({ status }) => status === "voting") !== true) return;
  faults.onStep = null;
  if (!isOver) failOthers(faults, watched);
}

/** The two would make a majority. */
function failOthers(faults: Faults, { safekeeper, laggard }: Watched): void {
  const { stage } = faults;
  stage.world.network.heal();
  for (const other of stage.safekeepers) {
    if (other === safekeeper || other === laggard || other.gone) continue;
    other.crash();
    stage.world.clock.after(AWAY_MS, () => faults.powerBack(other, 1));
    faults.atEnd(() => faults.powerBack(other, 1));
  }
  stage.trace.add("FAULT", `disk-lost: all but ${safekeeper.name} and ${laggard.name} are away`);
}

function restartComputes({ stage }: Faults): void {
  for (const compute of stage.computes) {
    if (!compute.isUp) continue;
    compute.stop("crash");
    compute.start();
  }
}
