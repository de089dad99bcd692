/** A safekeeper's machine: the shipping role on a virtual disk and network, started, stopped, crashed and started again. */
import { isStrataError } from "../../../src/kit/errors.ts";
import type { Transport } from "../../../src/http/client.ts";
import type { Lsn } from "../../../src/kit/lsn.ts";
import type { FileSystem } from "../../../src/platform/files.ts";
import type { Platform } from "../../../src/platform/platform.ts";
import type { VirtualMachine, VirtualWorld } from "../../../src/platform/virtual/virtual-world.ts";
import { SAFEKEEPER_DEFAULTS, type SafekeeperConfig } from "../../../src/safekeeper/config.ts";
import { writeControlFile } from "../../../src/safekeeper/control-file/control-file.ts";
import type { TimelinePersistentState } from "../../../src/safekeeper/control-file/state.ts";
import { presentStatus } from "../../../src/safekeeper/http/present.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../../src/safekeeper/safekeeper.ts";
import { pulledState } from "../../../src/safekeeper/timeline/pull-timeline.ts";
import type { Timeline } from "../../../src/safekeeper/timeline/timeline.ts";
import type { Timelines } from "../../../src/safekeeper/timeline/timelines.ts";
import { PARTIAL_SUFFIX, segmentName } from "../../../src/safekeeper/wal-store/segments.ts";
import type { Watched } from "./checker.ts";
import { type Trace, TraceLogger } from "./trace.ts";
import type { VirtualBroker } from "./virtual-broker.ts";
import { PG_VERSION_NUM, SEGMENT_SIZE } from "./virtual-postgres.ts";
import { Violation } from "../violation.ts";

export const TIMELINE = { tenantId: "1a".repeat(16), timelineId: "2b".repeat(16) };
export const SAFEKEEPER_PORT = 5454;
const HTTP_PORT = 7676;
const DATA_DIRECTORY = "/data";
const RETRY_START_MS = 300;

async function writeWhole(files: FileSystem, path: string, bytes: Uint8Array): Promise<void> {
  const file = await files.open(path, "create-new");
  try {
    await file.write(bytes, 0);
    await file.sync();
  } finally {
    await file.close();
  }
}

export interface SafekeeperEnvironment {
  readonly world: VirtualWorld;
  readonly trace: Trace;
  readonly broker: VirtualBroker;
  readonly peers: () => readonly SimSafekeeper[];
  readonly onViolation: (violation: Violation) => void;
  /** It is told of the new timeline when it first runs. */
  readonly told: boolean;
  readonly settings: Pick<SafekeeperConfig, "peerRecovery" | "controlFileSaveIntervalMs" | "walSendersKeepHorizon">;
}

export class SimSafekeeper implements Watched {
  readonly name: string;
  readonly nodeId: number;
  readonly machine: VirtualMachine;
  damaged = false;
  gone = false;
  wipedAt: Watched["wipedAt"] = null;
  isStopping = false;
  seen: Watched["seen"] = null;
  /** The disk may refuse to be read right now: a timeline that does not open is no violation. */
  excuse = false;
  readonly #environment: SafekeeperEnvironment;
  #timelines: Timelines | null = null;
  #timeline: Timeline | null = null;
  #running: RunningSafekeeper | null = null;
  /** Of processes: what an earlier one still has to say is not heard. */
  #incarnation = 0;
  #prepared = false;
  #isTold: boolean;
  #files: FileSystem | null = null;
  /** Its timeline was deleted, up to where it had WAL: it may be brought back. */
  #deletedAt: Lsn | null = null;

  constructor(environment: SafekeeperEnvironment, nodeId: number) {
    this.#environment = environment;
    this.#isTold = !environment.told;
    this.nodeId = nodeId;
    this.name = `sk${nodeId}`;
    this.machine = environment.world.machine(this.name);
  }

  get disk(): VirtualMachine["disk"] {
    return this.machine.disk;
  }

  get isUp(): boolean {
    return this.#running !== null;
  }

  get timelines(): Timelines | null {
    return this.#timelines;
  }

  /** What the running process has open now. */
  get timeline(): Timeline | null {
    const known = this.#timeline;
    if (known !== null && !known.gate.isClosed) return known;
    return (this.#timeline = this.#timelines?.find(TIMELINE) ?? null);
  }

  /** Starts the process, again and again until it stays. */
  start(): void {
    // What is left of an earlier process that did not get far holds no locks.
    this.kill();
    const incarnation = ++this.#incarnation;
    const platform = this.machine.boot();
    this.#files = platform.files;
    void this.#start(platform, incarnation).catch((error: unknown) => {
      if (incarnation !== this.#incarnation) return;
      this.#environment.trace.add(this.name, `start failed: ${String(error)}`);
      this.#forget();
      this.#environment.world.clock.after(RETRY_START_MS, () => {
        if (incarnation === this.#incarnation) this.start();
      });
    });
  }

  async #start(platform: Platform, incarnation: number): Promise<void> {
    if (!this.#prepared) {
      await platform.files.makeDirectory(DATA_DIRECTORY);
      await platform.files.syncDirectory("/");
      this.#prepared = true;
    }
    const running = await startSafekeeper(this.#config(), {
      platform,
      log: new TraceLogger(this.#environment.trace, this.name),
      substitutes: {
        brokerClient: () => this.#environment.broker.client(platform),
        httpTransport: this.#transport(platform),
        serveHttp: (timelines) => {
          this.#timelines = timelines;
          return { port: HTTP_PORT, stop: async () => undefined };
        },
      },
    });
    if (incarnation !== this.#incarnation) return;
    await this.#hear(incarnation);
    if (incarnation !== this.#incarnation) return;
    this.#running = running;
    this.isStopping = false;
    this.#checkOpened();
  }

  /** Of the new timeline, once, as from whoever made it. */
  async #hear(incarnation: number): Promise<void> {
    if (this.#isTold) return;
    await this.#timelines?.create({ ...TIMELINE, pgVersion: PG_VERSION_NUM, systemId: 0n, walSegmentSizeBytes: SEGMENT_SIZE, startLsn: 0, commitLsn: 0, createdMs: 0 }, { revive: true });
    if (incarnation === this.#incarnation) this.#isTold = true;
  }

  /** What was there must open again. */
  #checkOpened(): void {
    if (this.seen === null || this.gone || this.timeline !== null) return;
    if (this.damaged) {
      // Noticed, and beyond repair.
      this.gone = true;
      this.#environment.trace.add(this.name, "is out: its timeline does not open");
    } else if (this.excuse) this.restartSoon();
    else this.#environment.onViolation(new Violation(`${this.name}: the timeline does not open after a restart`));
  }

  restartSoon(): void {
    const incarnation = this.#incarnation;
    this.#environment.world.clock.after(RETRY_START_MS, () => {
      if (incarnation !== this.#incarnation) return;
      this.start();
    });
  }

  #config(): SafekeeperConfig {
    return {
      ...SAFEKEEPER_DEFAULTS, ...this.#environment.settings,
      dataDirectory: DATA_DIRECTORY, nodeId: this.nodeId, pgAddress: { host: this.name, port: SAFEKEEPER_PORT }, httpAddress: { host: this.name, port: HTTP_PORT }, brokerEndpoint: "virtual:",
    };
  }

  #forget(): void {
    this.#running = null;
    this.#timelines = null;
    this.#timeline = null;
  }

  crash(): void {
    this.#incarnation++;
    this.#forget();
    this.machine.crash();
    if (this.machine.isPaused) this.machine.resume();
  }

  kill(): void {
    this.#incarnation++;
    this.#forget();
    this.machine.kill();
    if (this.machine.isPaused) this.machine.resume();
  }

  /** The disk is lost, and an empty one takes its place. */
  wipe(): void {
    this.wipedAt = this.seen?.flushLsn ?? 0;
    this.seen = null;
    this.kill();
    this.disk.erase();
    this.#prepared = false;
    this.#isTold = true;
  }

  /** An orderly stop and a start. */
  async restart(): Promise<void> {
    const running = this.#running;
    if (running === null) return;
    const incarnation = this.#incarnation;
    this.#running = null;
    this.isStopping = true;
    await running.stop();
    if (incarnation !== this.#incarnation) return;
    this.start();
  }

  /** Peers' status pages, as far as the network reaches. */
  #transport(platform: Platform): Transport {
    const { world, peers } = this.#environment;
    return async (url) => {
      const host = new URL(url).hostname;
      const peer = peers().find(({ name }) => name === host);
      await platform.clock.sleep(1);
      const reachable = world.network.isOpen(this.name, host) && world.network.isOpen(host, this.name);
      const timeline = peer?.timeline ?? null;
      if (!reachable || timeline === null) throw new Error(`${url} cannot be reached`);
      const reply = JSON.parse(JSON.stringify(presentStatus(timeline))) as unknown;
      return { status: 200, json: async () => reply } as unknown as Response;
    };
  }

  get isDeleted(): boolean {
    return this.#deletedAt !== null;
  }

  /** As an operator has it copy the timeline from a peer. Returns whether it did. */
  async pull(donor: SimSafekeeper): Promise<boolean> {
    const { timeline } = donor;
    const files = this.#files;
    const timelines = this.#timelines;
    if (timeline === null || files === null || timelines === null || this.timeline !== null) return false;
    const { state, segments } = await timeline.exclusive("snapshot", async () => donor.#capture(timeline));
    await timelines.addFrom(TIMELINE, async (directory) => {
      for (const { name, bytes } of segments) await writeWhole(files, `${directory}/${name}`, bytes);
      await writeControlFile(files, directory, { state: pulledState(state, { nodeId: this.nodeId, newMember: false }), sync: true });
    });
    if (this.#deletedAt !== null) {
      this.wipedAt = this.#deletedAt;
      this.seen = null;
      this.gone = false;
      this.#deletedAt = null;
    }
    return true;
  }

  /** What a snapshot holds: the bytes as programs see them. */
  #capture(timeline: Timeline): { readonly state: TimelinePersistentState; readonly segments: readonly { readonly name: string; readonly bytes: Uint8Array }[] } {
    const { acceptor, directory, state } = timeline;
    const flushLsn = acceptor.log.flushRecordLsn;
    const size = state.walSegmentSizeBytes;
    const segments: { name: string; bytes: Uint8Array }[] = [];
    for (let segment = Math.floor(state.localStartLsn / size); segment * size < flushLsn; segment++) {
      const path = `${directory}/${segmentName(segment, size)}`;
      const found = [path, path + PARTIAL_SUFFIX].find((name) => this.disk.tree.find(name) !== undefined);
      if (found === undefined) continue;
      const bytes = this.disk.fileAt(found).content.slice(0, Math.min(size, flushLsn - segment * size));
      segments.push({ name: segmentName(segment, size) + (bytes.length < size ? PARTIAL_SUFFIX : ""), bytes });
    }
    return { state: { ...state, ...acceptor.volatile, partialBackup: [] }, segments };
  }

  /** Deletes the timeline here, under its connections; it stays deleted. */
  async deleteTimeline(): Promise<void> {
    this.gone = true;
    this.#deletedAt = Math.max(this.#deletedAt ?? 0, this.wipedAt ?? 0, this.seen?.flushLsn ?? 0);
    const timelines = this.#timelines;
    const incarnation = this.#incarnation;
    if (timelines === null) return;
    try {
      await timelines.delete(TIMELINE);
    } catch (error) {
      // Whoever asked asks again.
      if (isStrataError(error)) this.#environment.world.clock.after(RETRY_START_MS, () => {
        if (this.gone && incarnation === this.#incarnation) void this.deleteTimeline();
      });
      else this.#environment.onViolation(new Violation(`${this.name}: deletion failed: ${String(error)}`));
    }
  }
}
