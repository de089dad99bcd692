/** Looks at the tenants: facts that are at hand, of shard zero of those that are attached and active. Nothing is loaded, downloaded or counted for it. */
import { isStrataError } from "../../kit/errors.ts";
import type { TenantId } from "../../kit/ids.ts";
import type { Clock } from "../../platform/clock.ts";
import { Pacer } from "../layers/pacer.ts";
import type { TenantTimeline } from "../tenant/tenant-timeline.ts";
import type { Tenant } from "../tenant/tenant.ts";
import type { Tenants, TenantView } from "../tenant/tenants.ts";
import { residentBytes, uploadedBytes } from "../tenant-metrics.ts";
import { eventTime } from "./event-time.ts";
import { type Owner, ownerKey } from "./events.ts";
import type { TenantFacts, TimelineFacts } from "./readings.ts";

export type Sample = (Owner & { readonly timeline: TimelineFacts }) | (Owner & { readonly tenant: TenantFacts });

/** One look. Who is here is known when it has ended. */
export class Sampling {
  readonly #tenants: Pick<Tenants, "list">;
  readonly #clock: Clock;
  /** Attached, but with nothing to say now. */
  readonly #silent = new Set<TenantId>();
  readonly #present = new Set<string>();

  constructor(tenants: Pick<Tenants, "list">, clock: Clock) {
    this.#tenants = tenants;
    this.#clock = clock;
  }

  /** What was told of it is still of use. */
  isHere(owner: Owner): boolean {
    return this.#silent.has(owner.tenantId) || this.#present.has(ownerKey(owner));
  }

  async *samples(): AsyncGenerator<Sample> {
    const pacer = new Pacer(this.#clock);
    for (const view of this.#tenants.list()) {
      if (view.id.number !== 0 || view.tenant === null) continue;
      if (speaks(view, view.tenant)) yield* this.#ofTenant(view.tenant, pacer);
      // It may have stopped meanwhile.
      if (!speaks(view, view.tenant)) this.#silent.add(view.id.tenantId);
      await pacer.pause();
    }
  }

  async *#ofTenant(tenant: Tenant, pacer: Pacer): AsyncGenerator<Sample> {
    const { tenantId } = tenant.tenantShardId;
    const { manager } = tenant;
    this.#present.add(tenantId);
    for (const timelineId of [...manager.brokenTimelines.keys(), ...manager.offloaded.map((one) => one.timelineId)]) this.#present.add(ownerKey({ tenantId, timelineId }));
    const sum = { remoteBytes: 0, residentBytes: 0 };
    for (const view of timelinesOf(tenant)) {
      const owner = { tenantId, timelineId: view.timeline.timelineId };
      this.#present.add(ownerKey(owner));
      sum.remoteBytes += uploadedBytes(view);
      sum.residentBytes += residentBytes(view);
      if (view.timeline.broken === null && !view.timeline.stopping.aborted) yield { ...owner, timeline: timelineFacts(view) };
      await pacer.pause();
    }
    yield { tenantId, timelineId: null, tenant: { ...sum, syntheticBytes: tenant.size.lastBytes } };
  }
}

/** One that another pageserver has taken over from tells what that one tells. */
function speaks({ location }: TenantView, tenant: Tenant): boolean {
  return tenant.state === "active" && location.mode !== "AttachedStale";
}

function timelinesOf(tenant: Tenant): TenantTimeline[] {
  try {
    return tenant.listTimelines();
  } catch (error) {
    if (!isStrataError(error)) throw error;
    return [];
  }
}

function timelineFacts({ timeline, datadir }: TenantTimeline): TimelineFacts {
  const { loadedAt, lastRecordLsn, ancestor, pitrCutoffLsn, config } = timeline;
  return {
    loadedAt: { lsn: loadedAt.lsn, time: eventTime(loadedAt.wallMs) },
    lastRecordLsn,
    ancestorLsn: ancestor?.lsn ?? 0,
    logicalSizeBytes: datadir.knownLogicalSizeBytes,
    pitrIntervalMs: config.pitrIntervalMs,
    pitrCutoffLsn,
  };
}
