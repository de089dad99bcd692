/**
 * All timelines of this safekeeper: loaded at the start, created, deleted. A timeline's directory is
 * `<data>/<tenant>/<timeline>/`; it appears there whole, by a rename, or not at all.
 */
import { isStrataError, StrataError } from "../../kit/errors.ts";
import { parseTenantId, parseTimelineId, type TenantId } from "../../kit/ids.ts";
import type { TenantTimelineId } from "../../broker/api/messages.ts";
import type { Random } from "../../platform/random.ts";
import { CONTROL_FILE_NAME, readControlFile, writeControlFile } from "../control-file/control-file.ts";
import { newTimelineState, type NewTimeline } from "../control-file/state.ts";
import { Timeline, type TimelineContext } from "./timeline.ts";
import { Tombstones } from "./tombstones.ts";

/** What is half made; emptied at every start. */
const TEMPORARY_DIRECTORY = "__temp";

export class Timelines {
  readonly #context: TimelineContext;
  readonly #dataDirectory: string;
  readonly #random: Random;
  readonly #timelines = new Map<string, Timeline>();
  /** Being created or deleted: by name of what is done. */
  readonly #busy = new Map<string, { readonly doing: "creation" | "deletion"; readonly done: Promise<unknown> }>();
  readonly #deleted: Tombstones;
  /** Are on this disk, and could not be opened. */
  readonly #unusable = new Set<string>();
  readonly #startedMs: number;

  constructor(options: { context: TimelineContext; dataDirectory: string; random: Random }) {
    this.#context = options.context;
    this.#dataDirectory = options.dataDirectory;
    this.#random = options.random;
    const { files, sync, clock } = options.context;
    this.#startedMs = clock.monotonicMs();
    this.#deleted = new Tombstones({ files, directory: options.dataDirectory, sync });
  }

  /** Opens what the data directory holds. A timeline that cannot be opened is logged and left alone: the others serve. */
  async load(): Promise<void> {
    const { files, log } = this.#context;
    await this.#deleted.load();
    await files.removeTree(`${this.#dataDirectory}/${TEMPORARY_DIRECTORY}`);
    await this.#settleNames(this.#dataDirectory);
    for (const tenant of await this.#listIds(this.#dataDirectory, parseTenantId)) {
      for (const timeline of await this.#timelinesOf(tenant)) {
        const id = { tenantId: tenant, timelineId: timeline };
        try {
          await this.#openFound(id);
        } catch (error) {
          this.#unusable.add(keyOf(id));
          log.error("timeline cannot be opened", { ...id, error });
        }
      }
    }
    log.info("timelines loaded", { count: this.#timelines.size });
  }

  /**
   * A process that was killed between a rename and the sync of its directory leaves a name that only the page cache has. It
   * is relied on from here on (a term, a whole timeline), so it is made durable first.
   */
  async #settleNames(directory: string): Promise<void> {
    if (this.#context.sync) await this.#context.files.syncDirectory(directory);
  }

  async #listIds(directory: string, parse: (text: string) => string): Promise<string[]> {
    const names = await this.#context.files.list(directory);
    return names.filter((name) => {
      try {
        return parse(name) === name;
      } catch {
        return false;
      }
    });
  }

  async #timelinesOf(tenantId: TenantId): Promise<string[]> {
    const path = `${this.#dataDirectory}/${tenantId}`;
    return await this.#listIds(path, parseTimelineId).catch((error: unknown) => {
      if (!isStrataError(error, "file-not-found")) throw error;
      this.#context.log.warn("a stray file has a tenant's name", { tenantId, path });
      return [];
    });
  }

  async #openFound(id: TenantTimelineId): Promise<Timeline> {
    await this.#settleNames(`${this.#dataDirectory}/${id.tenantId}`);
    await this.#settleNames(this.#directoryOf(id));
    return this.#openExisting(id);
  }

  async #openExisting(id: TenantTimelineId): Promise<Timeline> {
    const directory = this.#directoryOf(id);
    const state = await readControlFile(this.#context.files, directory);
    if (state.tenantId !== id.tenantId || state.timelineId !== id.timelineId) {
      throw new StrataError("corrupt", "bad-control-file", `${directory}/${CONTROL_FILE_NAME} is of timeline ${state.tenantId}/${state.timelineId}`, { details: { path: directory } });
    }
    const timeline = await Timeline.open(this.#context, directory, state);
    this.#timelines.set(keyOf(id), timeline);
    this.#unusable.delete(keyOf(id));
    return timeline;
  }

  get all(): readonly Timeline[] {
    return [...this.#timelines.values()];
  }

  /** @throws StrataError not-found `timeline-not-found`; retry `timeline-busy` while it is created or deleted */
  get(id: TenantTimelineId): Timeline {
    const key = keyOf(id);
    const busy = this.#busy.get(key);
    if (busy !== undefined) throw new StrataError("retry", "timeline-busy", `timeline ${key}: ${busy.doing} is in progress`);
    const timeline = this.#timelines.get(key);
    if (timeline !== undefined) return timeline;
    throw new StrataError("not-found", "timeline-not-found", `timeline ${key} was not found${this.#deleted.has(key) ? ": it has been deleted" : ""}`);
  }

  find(id: TenantTimelineId): Timeline | null {
    return this.#busy.has(keyOf(id)) ? null : (this.#timelines.get(keyOf(id)) ?? null);
  }

  /** For another safekeeper, which must not take what cannot be opened now for what never was. */
  async presence(id: TenantTimelineId): Promise<Timeline | "absent" | "unusable"> {
    await this.#busy.get(keyOf(id))?.done.catch(() => undefined);
    return this.find(id) ?? (this.#unusable.has(keyOf(id)) ? "unusable" : "absent");
  }

  /**
   * Creates a timeline, or gives the one that is there. Concurrent calls for one id make it once. One that was deleted here is not
   * new here, whoever says so: its node gives no votes before it is proved that nobody has WAL of it.
   * @param options.revive whether a timeline that was deleted here may come back: an operator may, a compute may not
   * @throws StrataError fix-input on impossible parameters; conflict `timeline-deleted`; what opening it throws, when it is on the disk
   */
  async create(timeline: NewTimeline, options: { revive: boolean }): Promise<Timeline> {
    const key = keyOf(timeline);
    const busy = this.#busy.get(key);
    if (busy !== undefined) await busy.done.catch(() => undefined);
    const existing = this.find(timeline);
    if (existing !== null) return existing;
    if (this.#deleted.has(key) && !options.revive) throw new StrataError("conflict", "timeline-deleted", `timeline ${key} has been deleted`);
    if (this.#unusable.has(key)) return this.#guarded(timeline, "creation", () => this.#openFound(timeline));
    const state = newTimelineState({ ...timeline, recovering: timeline.recovering === true || this.#deleted.has(key) });
    return this.addFrom(timeline, (directory) => writeControlFile(this.#context.files, directory, { state, sync: this.#context.sync }));
  }

  /**
   * Adds a timeline whose files `fill` puts into an empty directory, durably; it becomes visible only whole.
   * @throws StrataError conflict `timeline-exists`, `timeline-unusable`; retry `timeline-busy`
   */
  async addFrom(id: TenantTimelineId, fill: (directory: string) => Promise<void>): Promise<Timeline> {
    const key = keyOf(id);
    if (this.#timelines.has(key)) throw new StrataError("conflict", "timeline-exists", `timeline ${key} exists`);
    if (this.#unusable.has(key)) throw new StrataError("conflict", "timeline-unusable", `timeline ${key} is on this disk and could not be opened: delete it first`);
    return this.#guarded(id, "creation", async () => {
      await this.#install(id, fill);
      const timeline = await this.#openExisting(id);
      timeline.blankSinceMs = this.#deleted.has(key) ? this.#context.clock.monotonicMs() : this.#startedMs;
      // A timeline that is here counts, deleted once or not.
      await this.#deleted.remove(key).catch((error: unknown) => timeline.log.warn("that the timeline was deleted once is still written down: a compute cannot bring it back when it is deleted again", { error }));
      timeline.log.info("timeline created", { startLsn: timeline.state.timelineStartLsn, pgVersion: timeline.state.pgVersion });
      return timeline;
    });
  }

  async #install(id: TenantTimelineId, fill: (directory: string) => Promise<void>): Promise<void> {
    const { files, sync } = this.#context;
    const temporary = `${this.#dataDirectory}/${TEMPORARY_DIRECTORY}/${id.tenantId}_${id.timelineId}_${this.#random.bytes(8).toHex()}`;
    const tenantDirectory = `${this.#dataDirectory}/${id.tenantId}`;
    await files.makeDirectory(temporary);
    try {
      await fill(temporary);
      if (sync) await files.syncDirectory(temporary);
      await files.makeDirectory(tenantDirectory);
      if (sync) await files.syncDirectory(this.#dataDirectory);
      await files.rename(temporary, this.#directoryOf(id));
      // From here on it is on the disk, whatever fails.
      this.#unusable.add(keyOf(id));
      if (sync) await files.syncDirectory(tenantDirectory);
    } catch (error) {
      await files.removeTree(temporary).catch(() => undefined);
      throw error;
    }
  }

  /**
   * Ends the timeline's connections, waits for them, removes its files. Returns whether there were any.
   * @throws StrataError retry `timeline-busy`
   */
  async delete(id: TenantTimelineId): Promise<{ readonly existed: boolean }> {
    const { files, sync, metrics } = this.#context;
    const key = keyOf(id);
    return this.#guarded(id, "deletion", async () => {
      const timeline = this.#timelines.get(key);
      await this.#deleted.add(key);
      // Closed, it is of no use to anyone; what cannot be removed now is removed when it is asked for again.
      this.#timelines.delete(key);
      if (timeline !== undefined) this.#unusable.add(key);
      await timeline?.close({ save: false });
      const directory = this.#directoryOf(id);
      const existed = await files.exists(directory);
      if (existed) {
        // First out of sight: a crash half way must not leave a timeline with a part of its WAL.
        await files.makeDirectory(`${this.#dataDirectory}/${TEMPORARY_DIRECTORY}`);
        const doomed = `${this.#dataDirectory}/${TEMPORARY_DIRECTORY}/${id.tenantId}_${id.timelineId}_${this.#random.bytes(8).toHex()}`;
        await files.rename(directory, doomed);
        if (sync) await files.syncDirectory(`${this.#dataDirectory}/${id.tenantId}`);
        this.#unusable.delete(key);
        await files.removeTree(doomed);
      }
      this.#unusable.delete(key);
      metrics.forgetTimeline(id.tenantId, id.timelineId);
      timeline?.log.info("timeline deleted");
      return { existed };
    });
  }

  /** Deletes all timelines of a tenant; the result is by timeline id. */
  async deleteTenant(tenantId: TenantId): Promise<ReadonlyMap<string, { readonly existed: boolean }>> {
    const results = new Map<string, { readonly existed: boolean }>();
    for (const timeline of this.all.filter((candidate) => candidate.id.tenantId === tenantId)) {
      results.set(timeline.id.timelineId, await this.delete(timeline.id));
    }
    return results;
  }

  /** Closes all timelines; nothing that was received is lost. */
  async close(): Promise<void> {
    await Promise.all([...this.#busy.values()].map(({ done }) => done.catch(() => undefined)));
    await Promise.all(this.all.map((timeline) => timeline.close({ save: true })));
    this.#timelines.clear();
  }

  async #guarded<T>(id: TenantTimelineId, doing: "creation" | "deletion", action: () => Promise<T>): Promise<T> {
    const key = keyOf(id);
    const busy = this.#busy.get(key);
    if (busy !== undefined) throw new StrataError("retry", "timeline-busy", `timeline ${key}: ${busy.doing} is in progress`);
    const done = action();
    this.#busy.set(key, { doing, done });
    try {
      return await done;
    } finally {
      this.#busy.delete(key);
    }
  }

  #directoryOf(id: TenantTimelineId): string {
    return `${this.#dataDirectory}/${id.tenantId}/${id.timelineId}`;
  }
}

function keyOf(id: TenantTimelineId): string {
  return `${id.tenantId}/${id.timelineId}`;
}
