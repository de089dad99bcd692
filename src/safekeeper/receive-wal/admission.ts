/**
 * What a proposer finds when it brings WAL: the timeline, made here if need be. One that is made, or was made earlier and never
 * completed, is not taken for new unless that is certain: see `timeline/newness.ts`.
 *
 * Also of a timeline of which nobody has WAL this node may have promised something before it lost its disk: a vote, and then to have
 * taken in WAL that has not come to the others yet. A proposer counts on a vote for a while only before it is elected, and so long
 * nothing is answered, before the others are asked. When that time is over and none of them has voted, nobody was elected, and
 * nothing acknowledged. Most nodes run for longer than that when a timeline comes, and who is told of a new timeline by whoever
 * makes it need not ask.
 */
import { StrataError } from "../../kit/errors.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { TenantTimelineId } from "../../broker/api/messages.ts";
import type { Clock } from "../../platform/clock.ts";
import type { Configuration } from "../api/membership.ts";
import type { ProposerGreeting } from "../api/proposer-messages.ts";
import type { Address } from "../config.ts";
import type { Newness } from "../timeline/newness.ts";
import type { Term } from "../api/term-history.ts";
import type { Timeline } from "../timeline/timeline.ts";
import type { Timelines } from "../timeline/timelines.ts";

export interface Asking {
  /** All other safekeepers; null when the proposer does not say who they are. */
  readonly peers: readonly Address[] | null;
  readonly madeWithLsn: Lsn;
}

export type FindNewness = (id: TenantTimelineId, asking: Asking) => Promise<Newness>;

export interface AdmissionOptions {
  readonly timelines: Timelines;
  readonly id: TenantTimelineId;
  readonly allowTimelineCreation: boolean;
  readonly clock: Clock;
  readonly findNewness: FindNewness;
  /** As the proposer says; null when it does not. */
  readonly peers: readonly Address[] | null;
}

/**
 * A timeline that may have lost something takes no part for so long: a proposer that got this node's vote before is elected by
 * then or has asked again (`VOTES_VALID_MS` of the proposer).
 */
export const REJOIN_AFTER_MS = 6_000;

/** @throws StrataError not-found `timeline-not-found`; retry `timeline-recovering`, `timeline-newness-unknown`; conflict `timeline-deleted` */
export async function findOrCreate(options: AdmissionOptions, greeting: ProposerGreeting): Promise<Timeline> {
  const { timelines, id, allowTimelineCreation, clock } = options;
  const { pgVersion, systemId, walSegmentSizeBytes } = greeting;
  const timeline = allowTimelineCreation
    ? await timelines.create({ ...id, pgVersion, systemId, walSegmentSizeBytes, startLsn: 0, commitLsn: 0, createdMs: clock.wallMs(), recovering: true }, { revive: false })
    : timelines.get(id);
  if (!timeline.state.recovering) return timeline;
  // All connections that come meanwhile wait for one answer.
  timeline.admission ??= admit(timeline, options, greeting).finally(() => (timeline.admission = null));
  await timeline.admission;
  return timeline;
}

async function admit(timeline: Timeline, options: AdmissionOptions, greeting: ProposerGreeting): Promise<void> {
  const { clock, findNewness } = options;
  const peers = options.peers ?? membersBut(timeline.acceptor.nodeId, greeting.configuration);
  const ask = (): Promise<Newness> => findNewness(timeline.id, { peers, madeWithLsn: timeline.acceptor.flushLsn });
  let askedMs = clock.monotonicMs();
  let newness = await ask();
  if (hasOnlyWhatItWasMadeWith(timeline)) {
    const waitMs = promisesValidMs(timeline, askedMs);
    if (newness.kind === "new" && waitMs > 0 && (peers?.length ?? 0) > 0) {
      timeline.log.info("the timeline may be new: promises that this node may have given before it lost its disk run out first", { waitMs: Math.ceil(waitMs) });
      await clock.sleep(waitMs, timeline.signal);
      askedMs = clock.monotonicMs();
      newness = await ask();
    }
    if (newness.kind === "uncertain") {
      throw new StrataError("retry", "timeline-newness-unknown", `the timeline is not here, and whether it is new or was lost here is not known: ${newness.why}`);
    }
    if (newness.kind === "new") return takeAsNew(timeline);
    sayLoss(timeline, newness);
  }
  const leftMs = promisesValidMs(timeline, askedMs);
  if (leftMs > 0) throw new StrataError("retry", "timeline-recovering", `the timeline is recovering here, it takes part again in ${Math.ceil(leftMs)} ms`);
  if (peers !== null) checkTermsHeard(peers.length, newness);
  await adoptTerm(timeline, newness.term);
}

function sayLoss(timeline: Timeline, newness: Newness & { readonly kind: "known" | "voted" }): void {
  if (timeline.lossSaid) return;
  timeline.lossSaid = true;
  if (newness.kind === "known") timeline.log.warn("this safekeeper has nothing of a timeline of which others have WAL: it takes it in again, and gives no votes before it has everything", { knownBy: newness.by });
  else timeline.log.info("others have voted already: this safekeeper gives no votes before it has what the elected proposer brings", { knownBy: newness.by });
}

/** For how long a proposer may still count on what this node promised and does not know any more. */
function promisesValidMs(timeline: Timeline, nowMs: number): number {
  return timeline.blankSinceMs + REJOIN_AFTER_MS - nowMs;
}

/** No proposer has brought WAL: there is none, or that of a copy. */
function hasOnlyWhatItWasMadeWith({ acceptor }: Timeline): boolean {
  return acceptor.lastLogTerm === 0;
}

async function adoptTerm(timeline: Timeline, term: Term): Promise<void> {
  if (term > timeline.state.term) await timeline.run("term of the others", (acceptor) => acceptor.bumpTerm(term));
}

/**
 * Whom this node elected, and has forgotten, others elected too: so many have to say their term that one of those is among them.
 * An older proposer that had lost against that vote must not find this node open to it again.
 */
function checkTermsHeard(others: number, newness: Newness): void {
  const majority = Math.floor((others + 1) / 2) + 1;
  const needed = others + 1 - majority + 1;
  if (newness.heard < needed) throw new StrataError("retry", "timeline-recovering", `the timeline is recovering here: ${needed} of the other safekeepers must say their term, ${newness.heard} do`);
}

async function takeAsNew(timeline: Timeline): Promise<void> {
  await timeline.run("new timeline", function* (acceptor) {
    if (acceptor.lastLogTerm === 0) yield* acceptor.persist({ recovering: false });
  });
}

function membersBut(nodeId: number, { members, newMembers }: Configuration): readonly Address[] | null {
  const all = [...members, ...(newMembers ?? [])].filter((member) => member.nodeId !== nodeId);
  return all.length === 0 ? null : all.map(({ host, pgPort }) => ({ host, port: pgPort }));
}
