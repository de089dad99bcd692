/**
 * TLS between the roles, with tokens: every link is encrypted and checks who answers. A whole system with one authority; then its
 * servers show a certificate of another, and every client says so and waits, until the right one is back.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { z } from "zod";
import { type RunningBroker, startBroker } from "../../src/broker/broker.ts";
import { BROKER_DEFAULTS } from "../../src/broker/config.ts";
import { MIGRATIONS } from "../../src/cli/roles/run-controller.ts";
import type { Compute } from "../../src/compute/compute-context.ts";
import { startCompute } from "../../src/compute/compute.ts";
import type { ComputeConfig } from "../../src/compute/config.ts";
import { ControllerClient } from "../../src/controller/api/client.ts";
import { CONTROLLER_DEFAULTS } from "../../src/controller/config.ts";
import { type RunningController, startController } from "../../src/controller/controller.ts";
import { generateTokenKeys, signToken } from "../../src/http/auth.ts";
import { describeError } from "../../src/kit/errors.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { type RunningPageserver, startPageserverIn } from "../../src/pageserver/pageserver.ts";
import { freePort } from "../../src/platform/free-port.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { SAFEKEEPER_DEFAULTS, type SafekeeperConfig } from "../../src/safekeeper/config.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import { newCertificate } from "../support/certificate.ts";

const platform = realPlatform();
const HOST = "127.0.0.1";
const root = mkdtempSync(join(tmpdir(), "strata-tls-links-"));
chmodSync(root, 0o755);
const PATHS = { certPath: join(root, "server.crt"), keyPath: join(root, "server.key") };
const CA = join(root, "ca.crt");
const KEY = join(root, "key.pem");
const TENANT = "a".repeat(32);
const TIMELINE = "b".repeat(32);
const keys = generateTokenKeys();
const trusted = newCertificate();
const stranger = newCertificate();
const logs = { broker: new RecordingLogger(), safekeeper: new RecordingLogger(), pageserver: new RecordingLogger(), controller: new RecordingLogger(), compute: new RecordingLogger() };
const ports = { broker: freePort(), controller: freePort(), controllerHttps: freePort(), pageserverPg: freePort(), pageserverHttp: freePort(), pageserverHttps: freePort(), safekeepers: [1, 2, 3].map(() => ({ pg: freePort(), http: freePort(), https: freePort() })) };
const token = (scope: "safekeeperdata" | "generations_api" | "pageserverapi" | "admin"): string => signToken({ scope }, keys.privateKeyPem);

let broker: RunningBroker;
let controller: RunningController;
let pageserver: RunningPageserver;
const safekeepers: RunningSafekeeper[] = [];
let compute: Compute | null = null;

function install(certificate: { certPem: string; keyPem: string }): void {
  writeFileSync(PATHS.certPath, certificate.certPem);
  writeFileSync(PATHS.keyPath, certificate.keyPem);
}

const makeBroker = () => startBroker({ ...BROKER_DEFAULTS, listenPort: ports.broker, tls: PATHS, authPublicKeyPath: KEY }, { platform, log: logs.broker, version: "test" });

const brokerEndpoint = `https://${HOST}:${ports.broker}`;

function safekeeperConfig(index: number): SafekeeperConfig {
  const { pg, http, https } = ports.safekeepers[index];
  return {
    ...SAFEKEEPER_DEFAULTS, dataDirectory: join(root, `safekeeper-${index}`), nodeId: index + 1, pgAddress: { host: HOST, port: pg }, httpAddress: { host: HOST, port: http }, httpsAddress: { host: HOST, port: https },
    tls: PATHS, tlsWalService: true, brokerEndpoint, sslCaFile: CA, sslMode: "verify-full", useHttpsSafekeeperApi: true, peerRecovery: true,
    pgAuthPublicKeyPath: KEY, httpAuthPublicKeyPath: KEY, authTokenPath: join(root, "safekeeper.token"),
  };
}

const makeSafekeeper = (index: number) => startSafekeeper(safekeeperConfig(index), { platform, log: logs.safekeeper });

const makeController = () => startController(
  { ...CONTROLLER_DEFAULTS, dataDirectory: join(root, "controller"), listenPort: ports.controller, httpsAddress: { host: HOST, port: ports.controllerHttps }, tls: PATHS, authPublicKeyPath: KEY, jwtToken: token("pageserverapi"), useHttpsPageserverApi: true, sslCaFile: CA, heartbeatIntervalMs: 500 },
  { platform, log: logs.controller, version: "test", migrations: MIGRATIONS },
);

function pageserverDirectory(): string {
  const directory = join(root, "pageserver");
  mkdirSync(directory);
  writeFileSync(join(directory, "identity.toml"), "id = 1\n");
  writeFileSync(join(directory, "metadata.json"), JSON.stringify({ host: HOST, port: ports.pageserverPg, http_host: HOST, http_port: ports.pageserverHttp, https_port: ports.pageserverHttps, other: { availability_zone_id: "z" } }));
  writeFileSync(join(directory, "pageserver.toml"), [
    `listen_pg_addr = "${HOST}:${ports.pageserverPg}"`, `listen_http_addr = "${HOST}:${ports.pageserverHttp}"`, `listen_https_addr = "${HOST}:${ports.pageserverHttps}"`,
    `ssl_cert_file = "${PATHS.certPath}"`, `ssl_key_file = "${PATHS.keyPath}"`, `ssl_ca_file = "${CA}"`, 'ssl_mode = "verify-full"', "enable_tls_page_service_api = true",
    `broker_endpoint = "${brokerEndpoint}"`, `control_plane_api = "https://${HOST}:${ports.controllerHttps}/upcall/v1/"`, `control_plane_api_token = "${token("generations_api")}"`, `safekeeper_auth_token = "${token("safekeeperdata")}"`,
    'wait_lsn_timeout = "15s"', 'pg_auth_type = "NeonJWT"', 'http_auth_type = "NeonJWT"', `auth_validation_public_key_path = "${KEY}"`, `remote_storage = { local_path = "${join(root, "bucket")}" }`,
  ].join("\n"));
  return directory;
}

function computeConfig(name: string, change: Partial<ComputeConfig> = {}): ComputeConfig {
  return {
    tenantId: TENANT, timelineId: TIMELINE, safekeepers: ports.safekeepers.map(({ pg }) => ({ host: HOST, port: pg })), pageserver: { host: HOST, port: ports.pageserverPg }, pgVersion: 17,
    dataDirectory: join(root, name), pgPort: 0, httpPort: 0, mode: "primary", sslMode: "verify-full", sslCaFile: CA, authToken: signToken({ scope: "tenant", tenantId: TENANT }, keys.privateKeyPem), ...change,
  };
}

const start = (name: string, change: Partial<ComputeConfig> = {}) => startCompute(computeConfig(name, change), { platform, log: logs.compute });

async function sqlOf<T>(running: Compute, use: (sql: postgres.Sql) => Promise<T>): Promise<T> {
  const sql = postgres({ host: HOST, port: running.pgPort, user: running.superuser, database: "postgres", max: 1, onnotice: () => {} });
  try {
    return await use(sql);
  } finally {
    await sql.end({ timeout: 2 });
  }
}

beforeAll(async () => {
  install(trusted);
  writeFileSync(CA, trusted.certPem);
  writeFileSync(KEY, keys.publicKeyPem);
  writeFileSync(join(root, "safekeeper.token"), token("safekeeperdata"));
  broker = await makeBroker();
  for (const index of [0, 1, 2]) safekeepers.push(await makeSafekeeper(index));
  controller = await makeController();
  pageserver = await startPageserverIn(pageserverDirectory(), { platform, log: logs.pageserver });
  const client = new ControllerClient({ baseUrl: `https://${HOST}:${ports.controllerHttps}`, caPem: trusted.certPem, token: token("admin"), clock: platform.clock });
  for (let tries = 0; tries < 100 && (await client.nodes()).at(0)?.availability !== "Active"; tries++) await Bun.sleep(100);
  await client.createTenant({ new_tenant_id: TENANT });
  await client.createTimeline(TENANT, { new_timeline_id: TIMELINE, pg_version: 17 }, z.unknown());
  compute = await start("compute");
}, 120_000);
afterAll(async () => {
  await compute?.kill();
  await pageserver.stop();
  await controller.stop();
  for (const one of safekeepers) await one.stop();
  await broker.stop();
  rmSync(root, { recursive: true, force: true });
}, 60_000);

/** Lines of a role since `from` that tell of a certificate. */
function complaints(role: keyof typeof logs, from: number): readonly string[] {
  return logs[role].entries.slice(from).map(({ level, message, fields }) => `${level} ${message}: ${describeError(fields.error)} ${String(fields.reason ?? "")}`).filter((line) => /certificate/i.test(line));
}

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (await holds()) return;
    await Bun.sleep(50);
  }
  throw new Error(`in vain: ${what}`);
}

const running = (): Compute => {
  if (compute === null) throw new Error("there is no compute");
  return compute;
};

describe.serial("with one authority", () => {
  test("a commit passes, and what it wrote is in the next base backup", async () => {
    await sqlOf(running(), (sql) => sql.unsafe("create table t as select i, repeat('x', 500) as v from generate_series(1, 5000) i"));
    await running().stop();
    compute = await start("compute");
    expect(await sqlOf(compute, (sql) => sql`select count(*)::int as n, sum(length(v))::int as bytes from t`)).toMatchObject([{ n: 5000, bytes: 2_500_000 }]);
  }, 60_000);

  test("a replica's PostgreSQL checks the safekeepers' certificates itself", async () => {
    const replica = await start("replica", { mode: "replica" });
    try {
      await sqlOf(running(), (sql) => sql`insert into t values (0, 'through TLS')`);
      await until("the replica has it", () => sqlOf(replica, async (sql) => (await sql`select from t where i = 0`).length === 1));
      const [row] = await sqlOf(replica, (sql) => sql`select conninfo from pg_stat_wal_receiver`);
      expect(row.conninfo).toContain("sslmode=verify-full");
    } finally {
      await replica.stop();
    }
  }, 60_000);

  test("a safekeeper that was away gets what it lacks from a peer", async () => {
    await safekeepers[0].stop();
    await sqlOf(running(), (sql) => sql.unsafe("insert into t select i, 'later' from generate_series(10000, 12000) i"));
    await running().stop();
    compute = null;
    const from = logs.safekeeper.entries.length;
    safekeepers[0] = await makeSafekeeper(0);
    await until("recovery from a peer", () => logs.safekeeper.entries.slice(from).some(({ message }) => message === "recovered from a peer"));
    compute = await start("compute");
    expect(await sqlOf(compute, (sql) => sql`select count(*)::int as n from t where v = 'later'`)).toMatchObject([{ n: 2001 }]);
  }, 60_000);
});

/** What a fourth safekeeper, which trusts this authority, answers when it is told to copy the timeline from the others. */
async function pull(name: string, sslCaFile: string): Promise<{ readonly status: number; readonly text: string }> {
  const any = { host: HOST, port: 0 };
  const config = { ...safekeeperConfig(0), dataDirectory: join(root, name), nodeId: 4, pgAddress: any, httpAddress: any, httpsAddress: any, sslCaFile, brokerEndpoint: null };
  const fourth = await startSafekeeper(config, { platform, log: new RecordingLogger() });
  try {
    const body = JSON.stringify({ tenant_id: TENANT, timeline_id: TIMELINE, http_hosts: ports.safekeepers.map(({ https }) => `https://${HOST}:${https}`) });
    const headers = { authorization: `Bearer ${token("safekeeperdata")}`, "content-type": "application/json" };
    const reply = await fetch(`https://${HOST}:${fourth.httpsPort}/v1/pull_timeline`, { method: "POST", headers, body, tls: { ca: trusted.certPem } } as RequestInit);
    return { status: reply.status, text: await reply.text() };
  } finally {
    await fourth.stop();
  }
}

test("a timeline is copied over HTTPS, from safekeepers that are who they say", async () => {
  const other = join(root, "stranger.crt");
  writeFileSync(other, stranger.certPem);
  expect(await pull("fourth", CA)).toMatchObject({ status: 200, text: expect.stringContaining("https://") });
  expect(await pull("fifth", other)).toMatchObject({ status: 503, text: expect.stringMatching(/certificate/) });
}, 60_000);

describe.serial("with servers that a stranger vouches for", () => {
  const WAIT_MS = 4_000;
  /** Reconnects come after pauses that grow: a loop without them makes thousands. */
  const MOST_LINES = 60;

  test("every client says so and waits, nothing is lost, and with the right certificate all goes on", async () => {
    install(stranger);
    const from = Object.fromEntries(Object.entries(logs).map(([role, log]) => [role, log.entries.length])) as Record<keyof typeof logs, number>;
    for (const log of Object.values(logs)) log.expectWarn(/./);
    await broker.stop();
    broker = await makeBroker();
    await pageserver.reload();
    await controller.reload();
    for (const [index, one] of safekeepers.entries()) {
      await one.stop();
      safekeepers[index] = await makeSafekeeper(index);
    }
    const insert = sqlOf(running(), (sql) => sql`insert into t values (-1, 'in between')`).then(() => "committed");
    await Bun.sleep(WAIT_MS);
    expect(await Promise.race([insert, Promise.resolve("waits")])).toBe("waits");
    const links = { compute: complaints("compute", from.compute), pageserver: complaints("pageserver", from.pageserver), safekeeper: complaints("safekeeper", from.safekeeper), controller: complaints("controller", from.controller) };
    for (const [role, lines] of Object.entries(links)) {
      expect([role, lines.length > 0]).toEqual([role, true]);
      expect([role, lines.length <= MOST_LINES]).toEqual([role, true]);
    }
    expect(links.compute.some((line) => line.includes("safekeeper connection lost"))).toBe(true);
    expect(links.controller.some((line) => line.includes("node does not answer"))).toBe(true);
    expect(links.pageserver.some((line) => /broker/.test(line))).toBe(true);
    expect(links.safekeeper.some((line) => /broker/.test(line))).toBe(true);
    install(trusted);
    for (const one of [broker, controller, pageserver, ...safekeepers]) await one.reload();
    expect(await insert).toBe("committed");
    await running().stop();
    compute = await start("compute");
    expect(await sqlOf(compute, (sql) => sql`select v from t where i = -1`)).toMatchObject([{ v: "in between" }]);
  }, 120_000);

  test("a compute told of the wrong authority does not start, and says why", async () => {
    await running().stop();
    compute = null;
    const other = join(root, "other.crt");
    writeFileSync(other, stranger.certPem);
    await expect(start("stranger", { sslCaFile: other, settleTimeoutMs: 2_000 })).rejects.toThrow(/certificate/i);
    writeFileSync(other, "rubbish");
    await expect(start("stranger", { sslCaFile: other })).rejects.toMatchObject({ code: "bad-certificate-authority" });
    const plain = { ...computeConfig("plain"), sslMode: "disable" } as const;
    compute = await startCompute(plain, { platform, log: logs.compute });
    expect(await sqlOf(compute, (sql) => sql`select count(*)::int as n from t where i = -1`)).toMatchObject([{ n: 1 }]);
  }, 60_000);
});
