/**
 * All tenant shards of this pageserver: told by location configurations which to attach, hold or let go, and found for
 * the page service. One shard's failure is its own: the others go on.
 */
import { isStrataError, StrataError } from "../../kit/errors.ts";
import { parseTenantShardId, type TenantId, type TenantShardId, tenantShardIdToString, type TimelineId } from "../../kit/ids.ts";
import { KeyedLock } from "../../kit/keyed-lock.ts";
import { isKeyLocal, keyToShardNumber, makeShardIdentity, type ShardIdentity } from "../../keyspace/shard.ts";
import type { Logger } from "../../observability/log.ts";
import { listAll, type OperationOptions } from "../../remote-storage/remote-storage.ts";
import type { TravelTimes } from "../../remote-storage/time-travel.ts";
import { DEFAULT_STRIPE_SIZE, isAttached, type LocationConfig } from "../api/location.ts";
import type { ServedTimeline, ShardSelector, TimelineFinder } from "../page-service/served-timeline.ts";
import { timeTravelTenant } from "../remote-timeline/time-travel.ts";
import { writeLocationFile } from "./location-file.ts";
import { type TenantConf, type TenantSettings, tenantSettings } from "./tenant-config.ts";
import { Tenant, type TenantOptions } from "./tenant.ts";

const OBJECTS_OF_TENANT_MAX = 10_000_000;

interface Slot {
  readonly id: TenantShardId;
  location: LocationConfig;
  settings: TenantSettings;
  tenant: Tenant | null;
}

export interface TenantsOptions extends Omit<TenantOptions, "tenantShardId" | "shard" | "generation" | "settings" | "log"> {
  readonly log: Logger;
  readonly workDirectory: string;
  /** Of pageserver.toml. */
  readonly defaults: TenantSettings;
}

export interface TenantView {
  readonly id: TenantShardId;
  readonly location: LocationConfig;
  /** Null for secondaries. */
  readonly tenant: Tenant | null;
}

export class Tenants implements TimelineFinder {
  readonly #options: TenantsOptions;
  readonly #slots = new Map<string, Slot>();
  readonly #byTenant = new Map<TenantId, Slot[]>();
  readonly #locks = new KeyedLock();
  readonly #startup: Promise<void>[] = [];

  constructor(options: TenantsOptions) {
    this.#options = options;
  }

  get #counts() {
    return this.#options.resources.metrics.tenants;
  }

  #directoryOf(id: TenantShardId): string {
    return `${this.#options.workDirectory}/tenants/${tenantShardIdToString(id)}`;
  }

  // ---- Start and end

  async #startedUp(tenant: Tenant): Promise<void> {
    await tenant.loaded();
    if (tenant.state === "active") this.#counts.startupComplete++;
  }

  /** When those taken up at the start can be used, or cannot. */
  async loadedAtStart(): Promise<void> {
    await Promise.all(this.#startup.splice(0));
  }

  /** Takes up shards at start; loading goes on in the background. */
  async takeUp(locations: ReadonlyMap<string, LocationConfig>): Promise<void> {
    for (const [text, location] of locations) {
      try {
        const slot = await this.#place(parseTenantShardId(text), location);
        if (slot.tenant === null) continue;
        this.#counts.startupScheduled++;
        slot.tenant.start();
        this.#startup.push(this.#startedUp(slot.tenant));
      } catch (error) {
        this.#counts.unexpectedErrors++;
        this.#options.log.error("tenant cannot be taken up", { tenant: text, error });
      }
    }
  }

  async shutdown(options: { readonly flush: boolean }): Promise<void> {
    const slots = [...this.#slots.values()];
    const results = await Promise.allSettled(slots.map((slot) => slot.tenant?.shutdown(options)));
    results.forEach((result, index) => {
      if (result.status !== "rejected") return;
      this.#counts.unexpectedErrors++;
      this.#options.log.warn("tenant did not stop cleanly", { tenant: tenantShardIdToString(slots[index].id), error: result.reason as unknown });
    });
    this.#slots.clear();
    this.#byTenant.clear();
  }

  // ---- Locations

  /**
   * Makes a shard what `location` says; durable when it returns, and an attached tenant is loaded (or broken), unless that takes long:
   * then it goes on by itself.
   * @throws StrataError fix-input `bad-tenant-config`, `bad-shard`, `generation-missing`; conflict `stale-generation`
   */
  async applyLocation(id: TenantShardId, location: LocationConfig): Promise<void> {
    const key = tenantShardIdToString(id);
    await this.#options.resources.failpoints?.hit("put-location-conf-handler");
    const slot = await this.#locks.run({ key, operation: `location ${location.mode}` }, async () => {
      const known = this.#slots.get(key);
      if (location.mode === "Detached") {
        await this.#detach(id);
        return null;
      }
      if (known !== undefined && isSameAttachment(known, location)) {
        await this.#update(known, location);
        return known;
      }
      this.#checkGeneration(known, location);
      // Checked before anything stops.
      tenantSettings(location.tenant_conf, this.#options.defaults);
      identityOf(id, location);
      await known?.tenant?.shutdown({ flush: known.location.mode === "AttachedSingle" });
      return await this.#place(id, location);
    });
    await slot?.tenant?.load().catch(unlessNotReady);
  }

  #checkGeneration(known: Slot | undefined, location: LocationConfig): void {
    if (!isAttached(location.mode)) return;
    if (location.generation === null) throw new StrataError("fix-input", "generation-missing", "an attached location needs a generation");
    const current = known?.tenant?.generation;
    if (current !== undefined && location.generation < current) {
      throw new StrataError("conflict", "stale-generation", `generation ${location.generation} is older than ${current}, under which the tenant is attached`);
    }
  }

  async #update(slot: Slot, location: LocationConfig): Promise<void> {
    const settings = tenantSettings(location.tenant_conf, this.#options.defaults);
    await this.#options.resources.failpoints?.hit("tenant-config-before-write");
    await writeLocationFile(this.#options.resources.platform.files, this.#directoryOf(slot.id), location);
    slot.location = location;
    slot.settings = settings;
  }

  async #place(id: TenantShardId, location: LocationConfig): Promise<Slot> {
    const { resources, log, defaults } = this.#options;
    const settings = tenantSettings(location.tenant_conf, defaults);
    const shard = identityOf(id, location);
    await resources.failpoints?.hit("before-attaching-tenant");
    await writeLocationFile(resources.platform.files, this.#directoryOf(id), location);
    const slot: Slot = { id, location, settings, tenant: null };
    if (isAttached(location.mode)) {
      const generation = location.generation;
      if (generation === null) throw new StrataError("fix-input", "generation-missing", "an attached location needs a generation");
      slot.tenant = new Tenant({
        ...this.#options, tenantShardId: id, shard, generation, settings: () => slot.settings,
        log: log.child({ tenantId: id.tenantId, ...(id.count === 0 ? {} : { shard: tenantShardIdToString(id).slice(33) }) }),
      });
    }
    this.#slots.set(tenantShardIdToString(id), slot);
    this.#counts.slotWrites++;
    this.#index(id.tenantId);
    return slot;
  }

  #index(tenantId: TenantId): void {
    const slots = [...this.#slots.values()].filter((slot) => slot.id.tenantId === tenantId && slot.tenant !== null).sort((a, b) => a.id.number - b.id.number);
    if (slots.length === 0) this.#byTenant.delete(tenantId);
    else this.#byTenant.set(tenantId, slots);
  }

  async #detach(id: TenantShardId): Promise<void> {
    const { files } = this.#options.resources.platform;
    const key = tenantShardIdToString(id);
    const slot = this.#slots.get(key);
    if (this.#slots.delete(key)) this.#counts.slotWrites++;
    this.#index(id.tenantId);
    await slot?.tenant?.shutdown({ flush: false });
    await files.removeTree(this.#directoryOf(id));
    const parent = `${this.#options.workDirectory}/tenants`;
    if (await files.exists(parent)) await files.syncDirectory(parent);
  }

  /** Deletes a shard for good: objects, then the local directory. */
  async deleteTenant(id: TenantShardId): Promise<void> {
    const { remote, deletionQueue } = this.#options.resources;
    const key = tenantShardIdToString(id);
    await this.#locks.run({ key, operation: "delete tenant" }, async () => {
      await this.#slots.get(key)?.tenant?.shutdown({ flush: false });
      await deletionQueue.discardShard(id);
      const { objects } = await listAll(remote, { prefix: `tenants/${key}/`, maxTotal: OBJECTS_OF_TENANT_MAX });
      const keys = objects.map((object) => object.key);
      for (let at = 0; at < keys.length; at += remote.maxKeysPerDelete) await remote.delete(keys.slice(at, at + remote.maxKeysPerDelete));
      await this.#detach(id);
    });
  }

  /**
   * Takes a shard's objects back to what they were; it must be detached everywhere, of which this node can only see itself.
   * @throws StrataError fix-input `tenant-is-here`, and as `RemoteStorage.timeTravelRecover`
   */
  async timeTravel(id: TenantShardId, times: TravelTimes & OperationOptions): Promise<void> {
    const { resources, log } = this.#options;
    const key = tenantShardIdToString(id);
    await this.#locks.run({ key, operation: "time travel", signal: times.signal }, async () => {
      const here = [...this.#slots.values()].some((slot) => slot.id.tenantId === id.tenantId);
      if (here) throw new StrataError("fix-input", "tenant-is-here", `tenant ${id.tenantId} is attached or secondary at this pageserver: detach it first`);
      // What waits for deletion now may be in use again then.
      await resources.deletionQueue.discard(id.tenantId);
      await timeTravelTenant(resources.remote, id, { ...times, platform: resources.platform, log: log.child({ tenantId: id.tenantId }) });
    });
  }

  /** Changes the configuration of all shards of a tenant that are here. @throws StrataError not-found `tenant-not-found`, fix-input `bad-tenant-config` */
  async configure(tenantId: TenantId, change: (conf: TenantConf) => TenantConf): Promise<void> {
    const slots = [...this.#slots.values()].filter((slot) => slot.id.tenantId === tenantId);
    if (slots.length === 0) throw notFound(tenantId);
    for (const { id } of slots) {
      const key = tenantShardIdToString(id);
      await this.#locks.run({ key, operation: "configure" }, async () => {
        const slot = this.#slots.get(key);
        if (slot !== undefined) await this.#update(slot, { ...slot.location, tenant_conf: { ...change(slot.location.tenant_conf) } });
      });
    }
  }

  // ---- Finding

  list(): TenantView[] {
    return [...this.#slots.values()];
  }

  /** Attached shards and their generations: for the deletion queue and for validation. */
  generations(): Map<string, number> {
    return new Map([...this.#slots].flatMap(([key, { tenant }]) => (tenant === null ? [] : [[key, tenant.generation] as const])));
  }

  /** @throws StrataError not-found `tenant-not-found` */
  view(id: TenantShardId): TenantView {
    const slot = this.#slots.get(tenantShardIdToString(id));
    if (slot === undefined) throw notFound(tenantShardIdToString(id));
    return slot;
  }

  /** What is in effect for a shard. @throws StrataError not-found `tenant-not-found` */
  settingsOf(id: TenantShardId): TenantSettings {
    const slot = this.#slots.get(tenantShardIdToString(id));
    if (slot === undefined) throw notFound(tenantShardIdToString(id));
    return slot.settings;
  }

  /** @throws StrataError not-found `tenant-not-found`, conflict `tenant-not-attached` */
  attached(id: TenantShardId): Tenant {
    const { tenant } = this.view(id);
    if (tenant === null) throw new StrataError("conflict", "tenant-not-attached", `tenant ${tenantShardIdToString(id)} is a secondary here`);
    return tenant;
  }

  async find(target: { readonly tenantId: TenantId; readonly timelineId: TimelineId }, selector: ShardSelector): Promise<ServedTimeline> {
    const slot = select(this.#byTenant.get(target.tenantId) ?? [], selector);
    if (slot?.tenant == null) {
      if (this.#byTenant.has(target.tenantId)) this.#options.resources.metrics.pagestream.misrouted++;
      throw notFound(target.tenantId);
    }
    return await slot.tenant.timeline(target.timelineId);
  }

  findNow(target: { readonly tenantId: TenantId; readonly timelineId: TimelineId }, selector: ShardSelector): ServedTimeline | null {
    const slot = select(this.#byTenant.get(target.tenantId) ?? [], selector);
    if (slot?.tenant?.state !== "active") return null;
    try {
      return slot.tenant.timelineNow(target.timelineId);
    } catch {
      return null;
    }
  }
}

function select(slots: readonly Slot[], selector: ShardSelector): Slot | undefined {
  switch (selector.kind) {
    case "zero":
      return slots.find((slot) => slot.id.number === 0);
    case "known":
      return slots.find((slot) => slot.id.number === selector.shard.number && slot.id.count === selector.shard.count);
    case "holds":
      return slots.find(({ tenant }) => {
        if (tenant === null) return false;
        const { shard } = tenant;
        return isKeyLocal(selector.key, shard) && (shard.count < 2 || keyToShardNumber(selector.key, shard) === shard.number);
      });
  }
}

/** A location that changes nothing but mode within the generation, and configuration. */
function isSameAttachment(slot: Slot, location: LocationConfig): boolean {
  const { tenant } = slot;
  if (!isAttached(location.mode)) return tenant === null;
  if (tenant === null || tenant.state === "broken" || tenant.state === "stopping") return false;
  const same = location.shard_stripe_size === 0 || location.shard_stripe_size === tenant.shard.stripeBlocks;
  return same && location.generation === tenant.generation;
}

function identityOf(id: TenantShardId, location: LocationConfig): ShardIdentity {
  return makeShardIdentity(id, location.shard_stripe_size === 0 ? DEFAULT_STRIPE_SIZE : location.shard_stripe_size);
}

function notFound(id: string): StrataError {
  return new StrataError("not-found", "tenant-not-found", `tenant ${id} was not found`, { details: { tenantId: id } });
}

function unlessNotReady(error: unknown): void {
  if (!isStrataError(error, "tenant-not-ready")) throw error;
}
