/** A tenant's synthetic size: gathers the facts of its timelines, finds logical sizes where the model wants them, and remembers both. */
import { isStrataError } from "../../kit/errors.ts";
import { Mutex } from "../../kit/mutex.ts";
import type { Lsn } from "../../kit/lsn.ts";
import type { Clock } from "../../platform/clock.ts";
import { Pacer } from "../../platform/pacer.ts";
import type { TenantTimeline } from "../tenant/tenant-timeline.ts";
import type { WorkSlots } from "../timeline/work-slots.ts";
import { type SizeInputs, sizeInputsInSteps, type SizePoint, type TimelineFacts, wantsSize } from "./size-inputs.ts";
import { type SegmentSize, tenantSizeInSteps } from "./size-model.ts";

const FACTS_AT_ONCE = 8;

export interface TenantSizeOptions {
  /** Those that count: active, and not archived. */
  readonly timelines: () => readonly TenantTimeline[];
  /** Of the whole pageserver: counting a large database's relations is work. */
  readonly slots: WorkSlots;
  readonly clock: Clock;
}

export interface CalculatedSize {
  readonly sizeBytes: number;
  readonly segmentSizes: readonly SegmentSize[];
  readonly inputs: SizeInputs;
}

export class TenantSize {
  readonly #options: TenantSizeOptions;
  readonly #turn = new Mutex();
  /** By timeline and LSN: what a point of the past held does not change. */
  #sizes = new Map<string, number>();
  #lastBytes: number | null = null;

  constructor(options: TenantSizeOptions) {
    this.#options = options;
  }

  /** Of the last calculation over the whole retention; null before the first. */
  get lastBytes(): number | null {
    return this.#lastBytes;
  }

  /** @throws StrataError when a logical size cannot be found */
  gather(options: { readonly maxRetentionBytes?: number; readonly signal?: AbortSignal } = {}): Promise<SizeInputs> {
    return this.#turn.run("size inputs", async () => {
      const timelines = new Map(this.#options.timelines().map((view) => [view.timeline.timelineId, view]));
      const pacer = this.#pacer();
      const facts = await factsOfAll([...timelines.values()], { pacer, signal: options.signal });
      const inputs = await pacer.run(sizeInputsInSteps(facts, options.maxRetentionBytes ?? null), options.signal);
      const used = new Map<string, number>();
      const segments: SizePoint[] = [];
      for (const point of inputs.segments) {
        const view = timelines.get(point.timeline_id);
        segments.push(view !== undefined && wantsSize(point) ? await this.#withSize(point, view, { used, signal: options.signal }) : point);
        const pause = pacer.pause();
        if (pause !== undefined) await pause;
      }
      this.#sizes = used;
      return { ...inputs, segments };
    });
  }

  async calculate(options: { readonly maxRetentionBytes?: number; readonly signal?: AbortSignal } = {}): Promise<CalculatedSize> {
    const inputs = await this.gather(options);
    const { totalSizeBytes, segments } = await this.#pacer().run(tenantSizeInSteps(inputs.segments.map(({ segment }) => segment)), options.signal);
    if (options.maxRetentionBytes === undefined) this.#lastBytes = totalSizeBytes;
    return { sizeBytes: totalSizeBytes, segmentSizes: segments, inputs };
  }

  #pacer(): Pacer {
    return new Pacer(this.#options.clock);
  }

  async #withSize(point: SizePoint, view: TenantTimeline, context: { readonly used: Map<string, number>; readonly signal?: AbortSignal }): Promise<SizePoint> {
    const { used, signal } = context;
    const key = `${point.timeline_id}@${point.segment.lsn}`;
    const size = used.get(key) ?? this.#sizes.get(key) ?? (await this.#options.slots.run(() => view.datadir.logicalSizeBytes(point.segment.lsn, { task: "synthetic-size", signal }), signal));
    used.set(key, size);
    return { ...point, segment: { ...point.segment, size } };
  }
}

/** Some at a time: each may have to look for the LSN of a moment. */
async function factsOfAll(views: readonly TenantTimeline[], { pacer, signal }: { readonly pacer: Pacer; readonly signal: AbortSignal | undefined }): Promise<TimelineFacts[]> {
  const facts: TimelineFacts[] = [];
  for (let at = 0; at < views.length; at += FACTS_AT_ONCE) {
    facts.push(...(await Promise.all(views.slice(at, at + FACTS_AT_ONCE).map((view) => factsOf(view, signal)))));
    const pause = pacer.pause();
    if (pause !== undefined) await pause;
  }
  return facts;
}

async function factsOf(view: TenantTimeline, signal?: AbortSignal): Promise<TimelineFacts> {
  const { timelineId, ancestor, initdbLsn, lastRecordLsn, gcCutoffLsn, leases } = view.timeline;
  return { timelineId, ancestor, initdbLsn, lastRecordLsn, gcCutoffLsn, pitrCutoffLsn: await pitrCutoff(view, signal), leases: leases.valid() };
}

/** An interval of 0 keeps the newest only; an unknown cutoff keeps everything. */
async function pitrCutoff({ timeline }: TenantTimeline, signal?: AbortSignal): Promise<Lsn> {
  const { config, deps, lastRecordLsn } = timeline;
  if (config.pitrIntervalMs === 0) return lastRecordLsn;
  try {
    return (await deps.lsnForTimestamp(timeline, deps.platform.clock.wallMs() - config.pitrIntervalMs, { task: "synthetic-size", signal })) ?? 0;
  } catch (error) {
    if (!isStrataError(error) || signal?.aborted === true) throw error;
    return 0;
  }
}
