/**
 * TLS and keys on every role, with stock clients: a PostgreSQL driver, fetch, gRPC. Certificates and keys are replaced while the roles
 * run; tokens have an end, an audience and a key id.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import postgres from "postgres";
import { connectBroker } from "../../src/broker/api/client.ts";
import { startBroker } from "../../src/broker/broker.ts";
import { BROKER_DEFAULTS } from "../../src/broker/config.ts";
import { MIGRATIONS } from "../../src/cli/roles/run-controller.ts";
import { CONTROLLER_DEFAULTS } from "../../src/controller/config.ts";
import { startController } from "../../src/controller/controller.ts";
import { type Claims, generateTokenKeys, signToken, type TokenOptions } from "../../src/http/auth.ts";
import { RecordingLogger } from "../../src/observability/recording-logger.ts";
import { startPageserverIn } from "../../src/pageserver/pageserver.ts";
import { freePort } from "../../src/platform/free-port.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { SAFEKEEPER_DEFAULTS } from "../../src/safekeeper/config.ts";
import { startSafekeeper } from "../../src/safekeeper/safekeeper.ts";
import { PgClient } from "../../src/wire/client.ts";
import { newCertificate } from "../support/certificate.ts";

const platform = realPlatform();
const log = new RecordingLogger();
const root = mkdtempSync(join(tmpdir(), "strata-tls-"));
chmodSync(root, 0o755);
const HOST = "127.0.0.1";
const ANY = { host: HOST, port: 0 };
const PATHS = { certPath: join(root, "server.crt"), keyPath: join(root, "server.key") };
const KEYS = join(root, "keys");

interface Role {
  readonly name: string;
  readonly pgPort: number | null;
  readonly httpsPort: number;
  readonly audience: string;
  /** A path that needs a token, and a scope that may. */
  readonly guarded: { readonly path: string; readonly scope: Claims["scope"] };
  reload(): Promise<void>;
  stop(): Promise<unknown>;
}

let current = newCertificate();
const firstKeys = generateTokenKeys();
const secondKeys = generateTokenKeys();
const roles: Role[] = [];

function install(certificate: { certPem: string; keyPem: string }): void {
  writeFileSync(PATHS.certPath, certificate.certPem);
  writeFileSync(PATHS.keyPath, certificate.keyPem);
  current = certificate;
}

async function safekeeper(): Promise<Role> {
  const config = { ...SAFEKEEPER_DEFAULTS, dataDirectory: join(root, "safekeeper"), nodeId: 1, pgAddress: ANY, httpAddress: ANY, httpsAddress: ANY, tls: PATHS, tlsWalService: true, brokerEndpoint: null, httpAuthPublicKeyPath: KEYS, pgAuthPublicKeyPath: KEYS };
  const role = await startSafekeeper(config, { platform, log });
  return { ...role, name: "safekeeper", httpsPort: role.httpsPort ?? 0, audience: "safekeeper", guarded: { path: "/v1/debug_dump", scope: "safekeeperdata" } };
}

async function pageserver(): Promise<Role> {
  const workDirectory = join(root, "pageserver");
  mkdirSync(workDirectory);
  writeFileSync(join(workDirectory, "identity.toml"), "id = 1\n");
  writeFileSync(join(workDirectory, "pageserver.toml"), [
    `listen_pg_addr = "${HOST}:0"`, `listen_http_addr = "${HOST}:0"`, `listen_https_addr = "${HOST}:0"`, `ssl_cert_file = "${PATHS.certPath}"`, 'ssl_key_file = "../server.key"',
    "enable_tls_page_service_api = true", 'pg_auth_type = "NeonJWT"', 'http_auth_type = "NeonJWT"', `auth_validation_public_key_path = "${KEYS}"`, `remote_storage = { local_path = "${join(root, "bucket")}" }`,
  ].join("\n"));
  const role = await startPageserverIn(workDirectory, { platform, log });
  return { ...role, name: "pageserver", httpsPort: role.httpsPort ?? 0, audience: "pageserver", guarded: { path: "/v1/tenant", scope: "pageserverapi" } };
}

async function broker(): Promise<Role> {
  const role = await startBroker({ ...BROKER_DEFAULTS, listenPort: 0, httpsAddress: ANY, tls: PATHS, authPublicKeyPath: KEYS }, { platform, log, version: "test" });
  return { ...role, name: "broker", pgPort: null, httpsPort: role.httpsPort ?? 0, audience: "broker", guarded: { path: "/no/such/path", scope: "safekeeperdata" } };
}

async function controller(): Promise<Role> {
  const config = { ...CONTROLLER_DEFAULTS, dataDirectory: join(root, "controller"), listenPort: 0, httpsAddress: ANY, tls: PATHS, authPublicKeyPath: KEYS };
  const role = await startController(config, { platform, log, version: "test", migrations: MIGRATIONS });
  return { ...role, name: "controller", pgPort: null, httpsPort: role.httpsPort ?? 0, audience: "controller", guarded: { path: "/control/v1/tenant", scope: "admin" } };
}

beforeAll(async () => {
  install(current);
  mkdirSync(KEYS);
  writeFileSync(join(KEYS, "first.pem"), firstKeys.publicKeyPem);
  for (const start of [safekeeper, pageserver, broker, controller]) roles.push(await start());
}, 120_000);
afterAll(async () => {
  for (const role of roles) await role.stop();
  rmSync(root, { recursive: true, force: true });
  log.assertQuiet();
}, 60_000);

/** Status of a reply; throws what the TLS handshake throws. */
async function get(role: Role, path: string, options: { token?: string; caPem?: string } = {}): Promise<number> {
  const headers: Record<string, string> = { connection: "close", ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }) };
  const reply = await fetch(`https://localhost:${role.httpsPort}${path}`, { headers, tls: { ca: options.caPem ?? current.certPem }, signal: AbortSignal.timeout(10_000) } as RequestInit);
  await reply.arrayBuffer();
  return reply.status;
}

function token(role: Role, options: TokenOptions & { privateKeyPem?: string } = {}): string {
  return signToken({ scope: role.guarded.scope }, options.privateKeyPem ?? firstKeys.privateKeyPem, options);
}

/** The fingerprint that a TLS client sees. */
function fingerprint(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: HOST, port, ca: current.certPem, servername: "localhost" }, () => {
      resolve(socket.getPeerCertificate().fingerprint256);
      socket.destroy();
    });
    socket.on("error", reject);
  });
}

/** What a driver that insists on TLS gets: the server's error, which proves the handshake, or what TLS says. */
async function throughLibpq(port: number, caPem: string): Promise<string> {
  const sql = postgres({ host: "localhost", port, user: "u", database: "d", password: "no token", ssl: { ca: caPem, servername: "localhost" }, max: 1, fetch_types: false, connect_timeout: 10, onnotice: () => {} });
  try {
    await sql.unsafe("select 1");
    return "accepted";
  } catch (error) {
    return String((error as { code?: string }).code);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

const each = async (check: (role: Role) => Promise<void>): Promise<void> => {
  expect(roles.length).toBe(4);
  for (const role of roles) await check(role).catch((error: unknown) => {
    throw new Error(`${role.name}: ${String(error)}`, { cause: error });
  });
};
const withPg = (): (Role & { pgPort: number })[] => roles.filter((role): role is Role & { pgPort: number } => role.pgPort !== null);

describe("certificates", () => {
  test("HTTPS answers whoever trusts the certificate, and nobody else gets that far", () => each(async (role) => {
    expect(await get(role, "/status")).toBe(200);
    await expect(get(role, "/status", { caPem: newCertificate().certPem })).rejects.toThrow(/certificate/i);
    await expect(fetch(`http://${HOST}:${role.httpsPort}/status`, { signal: AbortSignal.timeout(5_000) })).rejects.toThrow();
  }), 60_000);

  test("libpq: TLS for who asks for it, plain for who does not, and no token over either is no entry", async () => {
    expect(withPg().map(({ name }) => name)).toEqual(["safekeeper", "pageserver"]);
    for (const { pgPort } of withPg()) {
      expect(await throughLibpq(pgPort, current.certPem)).toMatch(/^(28P01|42501)$/);
      expect(await throughLibpq(pgPort, newCertificate().certPem)).toMatch(/CERT|SELF_SIGNED/);
      const plain = postgres({ host: HOST, port: pgPort, user: "u", database: "d", password: "no token", ssl: false, max: 1, fetch_types: false, onnotice: () => {} });
      expect(await plain.unsafe("select 1").catch((error: postgres.PostgresError) => error.code)).toMatch(/^(28P01|42501)$/);
      await plain.end({ timeout: 1 });
    }
  }, 60_000);

  test("gRPC over TLS", async () => {
    const role = roles[2];
    const client = connectBroker({ endpoint: `https://localhost:${role.httpsPort}`, caPem: current.certPem, token: token(role) });
    await client.publishOne({ type: "discovery-request", request: { tenantId: "a".repeat(32), timelineId: "b".repeat(32) } });
    client.close();
    const stranger = connectBroker({ endpoint: `https://localhost:${role.httpsPort}`, caPem: newCertificate().certPem, token: token(role) });
    await expect(stranger.publishOne({ type: "discovery-request", request: { tenantId: "a".repeat(32), timelineId: "b".repeat(32) } })).rejects.toThrow();
    stranger.close();
  }, 30_000);

  test("a new certificate is taken without a restart; half of one, or rubbish, is not", () => each(async (role) => {
    const before = await fingerprint(role.httpsPort);
    const old = current;
    writeFileSync(PATHS.certPath, newCertificate().certPem);
    await role.reload();
    expect(await fingerprint(role.httpsPort)).toBe(before);
    writeFileSync(PATHS.certPath, "rubbish");
    log.expectWarn("cannot be read again");
    await role.reload();
    expect(await fingerprint(role.httpsPort)).toBe(before);
    install(newCertificate());
    await role.reload();
    expect(await fingerprint(role.httpsPort)).not.toBe(before);
    expect(await get(role, "/status")).toBe(200);
    if (role.pgPort !== null) expect(await throughLibpq(role.pgPort, current.certPem)).toMatch(/^(28P01|42501)$/);
    const metrics = await (await fetch(`https://localhost:${role.httpsPort}/metrics`, { tls: { ca: current.certPem } } as RequestInit)).text();
    expect(metrics).toContain(`tls_certs_reload_updated_total{resolver_name="${role.name}"} 1`);
    expect(metrics).toContain(`tls_certs_reload_failed_total{resolver_name="${role.name}"} 2`);
    install(old);
    await role.reload();
  }), 60_000);

  test("an expired certificate is served, and refused by clients; its end is in the metrics", async () => {
    const good = current;
    install(newCertificate({ expired: true }));
    await each(async (role) => {
      await role.reload();
      await expect(get(role, "/status")).rejects.toThrow(/expired/i);
      if (role.pgPort !== null) expect(await throughLibpq(role.pgPort, current.certPem)).toBe("CERT_HAS_EXPIRED");
    });
    install(good);
    await each(async (role) => {
      await role.reload();
      expect(await get(role, "/status")).toBe(200);
    });
  }, 60_000);

  test("TLS without a certificate is refused at the start", async () => {
    const nowhere = { certPath: join(root, "none.crt"), keyPath: join(root, "none.key") };
    const config = { ...SAFEKEEPER_DEFAULTS, dataDirectory: join(root, "other"), nodeId: 2, pgAddress: ANY, httpAddress: ANY, brokerEndpoint: null };
    await expect(startSafekeeper({ ...config, httpsAddress: ANY, tls: nowhere }, { platform, log })).rejects.toMatchObject({ code: "file-not-found" });
    await expect(startSafekeeper({ ...config, tlsWalService: true }, { platform, log })).rejects.toMatchObject({ code: "certificate-missing" });
  }, 30_000);
});

test("a role that runs as a process takes a new certificate at SIGHUP", async () => {
  const main = join(import.meta.dir, "../../src/main.ts");
  const [pg, http, https] = [freePort(), freePort(), freePort()];
  const args = ["--role", "safekeeper", "--id", "7", "-D", join(root, "process"), "-l", `${HOST}:${pg}`, "--listen-http", `${HOST}:${http}`, "--listen-https", `${HOST}:${https}`];
  const child = Bun.spawn([process.execPath, main, ...args, "--broker-endpoint", "", "--ssl-cert-file", PATHS.certPath, "--ssl-key-file", PATHS.keyPath, "--enable-offload"], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  try {
    let before = "";
    for (let tries = 0; before === "" && tries < 200; tries++) before = await fingerprint(https).catch(() => Bun.sleep(50).then(() => ""));
    const old = current;
    install(newCertificate());
    child.kill("SIGHUP");
    let after = before;
    for (let tries = 0; after === before && tries < 200; tries++) after = await fingerprint(https).catch(() => Bun.sleep(50).then(() => before));
    expect(after).not.toBe(before);
    install(old);
  } finally {
    child.kill("SIGTERM");
  }
  expect(await child.exited).toBe(0);
  expect(await new Response(child.stderr).text() + (await new Response(child.stdout).text())).toContain("options that change nothing here options=--enable-offload");
}, 60_000);

describe("tokens", () => {
  const nowSeconds = (): number => Math.floor(Date.now() / 1000);
  /** Authorized, though the broker has nothing behind its permission. */
  const admitted = (role: Role): number => (role.name === "broker" ? 404 : 200);

  test("their end, their audience and their key are checked on every role", () => each(async (role) => {
    log.expectWarn("request refused");
    const { path } = role.guarded;
    expect(await get(role, path)).toBe(401);
    expect(await get(role, path, { token: token(role) })).toBe(admitted(role));
    expect(await get(role, path, { token: token(role, { expiresAtSeconds: nowSeconds() + 600, audience: role.audience, kid: "first" }) })).toBe(admitted(role));
    expect(await get(role, path, { token: token(role, { expiresAtSeconds: nowSeconds() - 600 }) })).toBe(403);
    expect(await get(role, path, { token: token(role, { audience: "somebody else" }) })).toBe(403);
    expect(await get(role, path, { token: token(role, { privateKeyPem: secondKeys.privateKeyPem }) })).toBe(403);
    expect(await get(role, path, { token: token(role, { privateKeyPem: secondKeys.privateKeyPem, kid: "first" }) })).toBe(403);
  }), 60_000);

  test("the same over libpq and gRPC", async () => {
    const [sk, ps, br] = roles;
    const bad = [{ expiresAtSeconds: nowSeconds() - 600 }, { audience: "somebody else" }, { privateKeyPem: secondKeys.privateKeyPem }];
    const options = `-c timeline_id=${"b".repeat(32)} tenant_id=${"a".repeat(32)}`;
    const open = (role: Role, password: string) => PgClient.connect(platform.network, { address: { host: HOST, port: role.pgPort ?? 0 }, parameters: { user: "u", options }, password, ...platform });
    for (const role of [sk, ps]) {
      await (await open(role, token(role, { expiresAtSeconds: nowSeconds() + 600, audience: role.audience }))).close();
      for (const wrong of bad) await expect(open(role, token(role, wrong))).rejects.toMatchObject({ details: { sqlState: "42501" } });
    }
    for (const wrong of bad) {
      const client = connectBroker({ endpoint: `https://localhost:${br.httpsPort}`, caPem: current.certPem, token: token(br, wrong) });
      await expect(client.publishOne({ type: "discovery-request", request: { tenantId: "a".repeat(32), timelineId: "b".repeat(32) } })).rejects.toThrow(/token|PERMISSION/i);
      client.close();
    }
  }, 30_000);

  test("keys are rotated without a restart: a second one beside the first, then the first one gone", async () => {
    log.expectWarn("request refused");
    const second = { privateKeyPem: secondKeys.privateKeyPem, kid: "second" };
    writeFileSync(join(KEYS, "second.pem"), secondKeys.publicKeyPem);
    await each(async (role) => {
      await role.reload();
      expect(await get(role, role.guarded.path, { token: token(role) })).toBe(admitted(role));
      expect(await get(role, role.guarded.path, { token: token(role, second) })).toBe(admitted(role));
    });
    rmSync(join(KEYS, "first.pem"));
    await each(async (role) => {
      await role.reload();
      expect(await get(role, role.guarded.path, { token: token(role) })).toBe(403);
      expect(await get(role, role.guarded.path, { token: token(role, second) })).toBe(admitted(role));
    });
    // A directory without a key would refuse everybody: what was in use stays.
    rmSync(join(KEYS, "second.pem"));
    log.expectWarn("cannot be read again");
    await each(async (role) => {
      await role.reload();
      expect(await get(role, role.guarded.path, { token: token(role, second) })).toBe(admitted(role));
    });
  }, 60_000);
});
