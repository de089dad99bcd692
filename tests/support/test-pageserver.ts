/** A pageserver in this process, in a temporary directory with its bucket beside it. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import type { PageserverConfig } from "../../src/pageserver/config.ts";
import { type RunningPageserver, startPageserver } from "../../src/pageserver/pageserver.ts";
import { tenantSettings } from "../../src/pageserver/tenant/tenant-config.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { PgClient } from "../../src/wire/client.ts";

export const TENANT_ID = "0123456789abcdef0123456789abcdef";

export class TestPageserver {
  readonly root = mkdtempSync(join(tmpdir(), "strata-pageserver-"));
  readonly log = new RecordingLogger();
  readonly platform = realPlatform();
  #overrides: Partial<PageserverConfig>;
  #running: RunningPageserver | null = null;

  constructor(overrides: Partial<PageserverConfig> = {}) {
    this.#overrides = overrides;
  }

  /** For the next start. */
  configure(overrides: Partial<PageserverConfig>): void {
    this.#overrides = { ...this.#overrides, ...overrides };
  }

  get workDirectory(): string {
    return join(this.root, "work");
  }

  get running(): RunningPageserver {
    if (this.#running === null) throw new Error("the pageserver is not running");
    return this.#running;
  }

  async start(): Promise<void> {
    const config: PageserverConfig = {
      workDirectory: this.workDirectory, nodeId: 1, pgAddress: { host: "127.0.0.1", port: 0 }, httpAddress: { host: "127.0.0.1", port: 0 },
      brokerEndpoint: null, controlPlaneApi: null, controlPlaneToken: null, availabilityZone: null, metadata: null,
      remoteStorage: { kind: "local", directory: join(this.root, "bucket") },
      initdb: { pgDistribDirectory: null, temporaryDirectory: tmpdir(), superuser: "postgres", dataChecksums: false, locale: "C" },
      tenantDefaults: tenantSettings({}), pageCacheBytes: 16 * 1024 * 1024, maxOpenFiles: 50, syntheticSizeIntervalMs: 0, testingMode: false,
      diskUsageEviction: { enabled: false, maxUsagePercent: 80, minAvailableBytes: 0, periodMs: 60_000, order: { highestLayerCountLosesFirst: true } }, pgAuth: false, httpAuth: false, authPublicKeyPath: null, safekeeperToken: null,
      ...this.#overrides,
    };
    this.#running = await startPageserver(config, { platform: this.platform, log: this.log, checkReplies: true });
  }

  async stop(flush = true): Promise<void> {
    await this.#running?.stop({ flush });
    this.#running = null;
  }

  async remove(): Promise<void> {
    await this.stop(false);
    rmSync(this.root, { recursive: true, force: true });
  }

  /** Everything local is gone, as after the loss of the machine. */
  wipe(): void {
    rmSync(this.workDirectory, { recursive: true, force: true });
  }

  async http(method: string, path: string, body?: unknown): Promise<{ status: number; json: unknown }> {
    const reply = await fetch(`http://127.0.0.1:${this.running.httpPort}${path}`, { method, ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }) });
    const text = await reply.text();
    return { status: reply.status, json: text === "" ? null : (JSON.parse(text) as unknown) };
  }

  attach(generation: number, conf: Record<string, unknown> = {}): Promise<{ status: number; json: unknown }> {
    return this.http("PUT", `/v1/tenant/${TENANT_ID}/location_config`, { mode: "AttachedSingle", generation, tenant_conf: conf });
  }

  client(password?: string): Promise<PgClient> {
    return PgClient.connect(this.platform.network, {
      address: { host: "127.0.0.1", port: this.running.pgPort }, parameters: { user: "test", database: "test" }, clock: this.platform.clock, random: this.platform.random,
      ...(password === undefined ? {} : { password }),
    });
  }
}
