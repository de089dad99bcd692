/** The roles as they run, with keys configured: their listeners, not only their route tables, keep strangers out. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { BROKER_METHODS } from "../../../src/broker/api/service.ts";
import { type RunningBroker, startBroker } from "../../../src/broker/broker.ts";
import { BROKER_DEFAULTS } from "../../../src/broker/config.ts";
import { type Claims, SCOPES } from "../../../src/http/auth.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { SAFEKEEPER_DEFAULTS } from "../../../src/safekeeper/config.ts";
import { type RunningSafekeeper, startSafekeeper } from "../../../src/safekeeper/safekeeper.ts";
import { TestPageserver } from "../../support/test-pageserver.ts";
import { errorFields, RawLibpq } from "../raw-libpq.ts";
import { EXPECTED } from "./expected-routes.ts";
import { badTokens, KEYS, OTHER_TENANT, OTHER_TIMELINE, TENANT, TIMELINE, token } from "./tokens.ts";

const directory = mkdtempSync(join(tmpdir(), "strata-auth-"));
const keyPath = join(directory, "key.pem");
const platform = realPlatform();
const anyPort = { host: "127.0.0.1", port: 0 };
const pageserver = new TestPageserver({ pgAuth: true, httpAuth: true, authPublicKeyPath: keyPath });
let safekeeper: RunningSafekeeper;
let broker: RunningBroker;

beforeAll(async () => {
  writeFileSync(keyPath, KEYS.publicKeyPem);
  safekeeper = await startSafekeeper(
    {
      ...SAFEKEEPER_DEFAULTS, dataDirectory: join(directory, "sk"), nodeId: 1, pgAddress: anyPort, httpAddress: anyPort, pgTenantOnlyAddress: anyPort, brokerEndpoint: null,
      pgAuthPublicKeyPath: keyPath, pgTenantOnlyAuthPublicKeyPath: keyPath, httpAuthPublicKeyPath: keyPath,
    },
    { platform, log: new RecordingLogger() },
  );
  broker = await startBroker({ ...BROKER_DEFAULTS, listenPort: 0, authPublicKeyPath: keyPath }, { platform, log: new RecordingLogger(), version: "test" });
  await pageserver.start();
}, 30_000);

afterAll(async () => {
  await pageserver.remove();
  await broker.stop();
  await safekeeper.stop();
  rmSync(directory, { recursive: true, force: true });
});

/** The routes a listener serves, from its own OpenAPI document. */
async function servedRoutes(port: number): Promise<string[]> {
  const document = (await (await fetch(`http://127.0.0.1:${port}/v1/openapi.json`)).json()) as { paths: Record<string, Record<string, unknown>> };
  return Object.entries(document.paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method} ${path}`));
}

test("HTTP: every route that is served is one of the matrix, and without a token only the public ones answer", async () => {
  for (const [role, port] of [["safekeeper", safekeeper.httpPort], ["pageserver", pageserver.running.httpPort], ["broker", broker.port]] as const) {
    const { routes } = EXPECTED[role];
    const served = await servedRoutes(port);
    expect(served.sort()).toEqual(Object.keys(routes).map((name) => name.replace(/:(\w+)/g, "{$1}")).sort());
    for (const [name, { scopes }] of Object.entries(routes)) {
      const [method, path] = name.split(" ");
      if (path === "/profile/cpu") continue;
      const url = `http://127.0.0.1:${port}${path.replace(/:(tenant_shard_id|tenant_id)/, TENANT).replace(":timeline_id", TIMELINE).replace(":destination_id", "1")}`;
      const ask = async (bearer?: string): Promise<number> => (await fetch(url, { method: method.toUpperCase(), ...(bearer === undefined ? {} : { headers: { authorization: `Bearer ${bearer}` } }) })).status;
      expect([role, name, await ask()]).toEqual([role, name, scopes === null ? 200 : 401]);
      if (scopes !== null) expect([role, name, await ask(badTokens({ scope: scopes[0] }).expired)]).toEqual([role, name, 403]);
    }
  }
});

/** How a connection with this password ends: "in", or the SQLSTATE and severity of the refusal. */
async function connectLibpq(port: number, password: string | undefined, options: string): Promise<string> {
  const { raw, frames } = await RawLibpq.session(port, { user: "u", database: "d", ...(options === "" ? {} : { options }) }, password);
  raw.close();
  const last = frames.at(-1);
  if (last?.tag === "Z") return "in";
  if (last?.tag === "R") return "asked for a password";
  if (last?.tag !== "E") return "closed";
  const { S: severity, C: state } = errorFields(last.body);
  return `${severity} ${state}`;
}

/** 28 and 42501: invalid authorization, insufficient privilege. */
const REFUSED = /^FATAL (28P01|42501)$/;

test("libpq of the safekeeper: no token, bad ones, each scope and tenant", async () => {
  const options = `-c tenant_id=${TENANT} timeline_id=${TIMELINE}`;
  const port = safekeeper.pgPort;
  const tenantOnly = safekeeper.pgTenantOnlyPort ?? 0;
  for (const one of [port, tenantOnly]) {
    expect(await connectLibpq(one, undefined, options)).toBe("asked for a password");
    expect(await connectLibpq(one, "", options)).toMatch(REFUSED);
    for (const [what, bad] of Object.entries(badTokens({ scope: "tenant", tenantId: TENANT }))) expect([what, await connectLibpq(one, bad, options)]).toEqual([what, expect.stringMatching(REFUSED)]);
  }
  for (const scope of SCOPES) {
    for (const tenantId of [undefined, TENANT, OTHER_TENANT]) {
      for (const timelineId of [undefined, TIMELINE, OTHER_TIMELINE]) {
        const claims: Claims = { scope, ...(tenantId === undefined ? {} : { tenantId }), ...(timelineId === undefined ? {} : { timelineId }) };
        const own = scope === "tenant" && tenantId === TENANT;
        const boundRight = timelineId === undefined || timelineId === TIMELINE;
        const cell = JSON.stringify(claims);
        expect([cell, (await connectLibpq(port, token(claims), options)) === "in"]).toEqual([cell, boundRight && (own || scope === "safekeeperdata")]);
        expect([cell, (await connectLibpq(tenantOnly, token(claims), options)) === "in"]).toEqual([cell, boundRight && own]);
      }
    }
  }
  // A tenant's token is of no use to a connection that names no tenant, and a node's is.
  expect(await connectLibpq(port, token({ scope: "tenant", tenantId: TENANT }), "")).toMatch(REFUSED);
  expect(await connectLibpq(port, token({ scope: "safekeeperdata" }), "")).toBe("in");
}, 30_000);

const COMMANDS = [
  (target: string) => `pagestream_v2 ${target}`,
  (target: string) => `pagestream_v3 ${target}`,
  (target: string) => `basebackup ${target}`,
  (target: string) => `fullbackup ${target}`,
  (target: string) => `fullbasebackup ${target}`,
  (target: string) => `lease lsn ${target} 0/8`,
];

test("libpq of the pageserver: no token, bad ones; then each command by whose timeline it names", async () => {
  const port = pageserver.running.pgPort;
  expect(await connectLibpq(port, undefined, "")).toBe("asked for a password");
  expect(await connectLibpq(port, "", "")).toMatch(REFUSED);
  for (const [what, bad] of Object.entries(badTokens({ scope: "pageserverapi" }))) expect([what, await connectLibpq(port, bad, "")]).toEqual([what, expect.stringMatching(REFUSED)]);
  for (const scope of SCOPES) {
    for (const timelineId of [undefined, TIMELINE, OTHER_TIMELINE]) {
      const claims: Claims = { scope, tenantId: TENANT, ...(timelineId === undefined ? {} : { timelineId }) };
      const { raw, frames } = await RawLibpq.session(port, { user: "u", database: "d" }, token(claims));
      expect(frames.at(-1)?.tag).toBe("Z");
      for (const command of COMMANDS) {
        for (const target of [`${TENANT} ${TIMELINE}`, `${OTHER_TENANT} ${TIMELINE}`]) {
          const sql = command(target);
          const own = target.startsWith(TENANT);
          const allowed = (scope === "pageserverapi" || (scope === "tenant" && own)) && timelineId !== OTHER_TIMELINE;
          const cell = `${JSON.stringify(claims)} ${sql}`;
          expect([cell, await stateOf(raw, sql)]).toEqual([cell, allowed ? (sql.startsWith("pagestream") ? "stream" : "42704") : "42501"]);
        }
      }
      raw.close();
    }
  }
}, 30_000);

/** The SQLSTATE a command is refused with (42704: let in, and not found), or "stream". The session is ready again afterwards. */
async function stateOf(raw: RawLibpq, sql: string): Promise<string> {
  raw.query(sql);
  const first = await raw.frame();
  if (first?.tag === "W") raw.message("c");
  await raw.untilReady();
  if (first?.tag === "W") return "stream";
  return first?.tag === "E" ? errorFields(first.body).C : `an unexpected "${first?.tag}"`;
}

test("gRPC of the broker: every method, each scope", async () => {
  const client = new Client(`127.0.0.1:${broker.port}`, credentials.createInsecure());
  const call = (method: keyof typeof BROKER_METHODS, bearer: string | undefined): Promise<number> =>
    new Promise((resolve) => {
      const { path, requestStream, responseStream } = BROKER_METHODS[method];
      const metadata = new Metadata();
      if (bearer !== undefined) metadata.set("authorization", `Bearer ${bearer}`);
      const identity = (value: Buffer): Buffer => value;
      const settle = (error: ServiceError | null): void => resolve(error?.code ?? status.OK);
      if (responseStream) {
        const stream = client.makeServerStreamRequest(path, identity, identity, Buffer.alloc(0), metadata, { deadline: Date.now() + 3000 });
        stream.on("error", settle);
        stream.on("data", () => undefined);
        return;
      }
      if (!requestStream) return void client.makeUnaryRequest(path, identity, identity, Buffer.alloc(0), metadata, settle);
      client.makeClientStreamRequest(path, identity, identity, metadata, settle).end();
    });
  const refused = [status.UNAUTHENTICATED, status.PERMISSION_DENIED];
  for (const method of Object.keys(BROKER_METHODS) as (keyof typeof BROKER_METHODS)[]) {
    expect([method, await call(method, undefined)]).toEqual([method, status.UNAUTHENTICATED]);
    for (const [what, bad] of Object.entries(badTokens({ scope: "safekeeperdata" }))) expect([method, what, await call(method, bad)]).toEqual([method, what, status.PERMISSION_DENIED]);
    for (const scope of SCOPES) {
      const allowed = ["safekeeperdata", "pageserverapi", "admin"].includes(scope);
      const code = await call(method, token({ scope, tenantId: TENANT }));
      expect([method, scope, refused.includes(code)]).toEqual([method, scope, !allowed]);
    }
  }
  client.close();
}, 30_000);

test("authentication without a key to check tokens by is refused at start, not switched off", async () => {
  for (const asked of [{ pgAuth: true }, { httpAuth: true }]) {
    const careless = new TestPageserver({ ...asked, authPublicKeyPath: null });
    await expect(careless.start()).rejects.toMatchObject({ code: "bad-jwt-key" });
    await careless.remove();
  }
});
