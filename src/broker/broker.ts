/**
 * The broker role: made of, in start order, the registry, the gRPC service over it, the HTTP application, and the one
 * port both share. It keeps nothing: a restarted broker is filled again by the next round of publications.
 */
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { StrataError } from "../kit/errors.ts";
import { createHttpApp } from "../http/app.ts";
import { bearerToken, checkPermission, type JwtAuth } from "../http/auth.ts";
import type { Certificate } from "../http/certificate.ts";
import { Credentials } from "../http/credentials.ts";
import { serveHttp } from "../http/serve.ts";
import type { Logger } from "../observability/log.ts";
import { Metrics } from "../observability/metrics.ts";
import type { Platform } from "../platform/platform.ts";
import { listenShared, type SharedPort, type SharedPortOptions } from "../platform/shared-port.ts";
import { BROKER_METHODS } from "./api/service.ts";
import type { BrokerConfig } from "./config.ts";
import { Registry } from "./registry/registry.ts";
import { brokerServiceHandlers } from "./server/grpc-service.ts";
import { brokerMetrics } from "./server/metrics.ts";

export interface RunningBroker {
  /** gRPC, and HTTP for /status and /metrics. */
  readonly port: number;
  /** Of the second port, with TLS; null without one. */
  readonly httpsPort: number | null;
  /** Reads keys and certificate again, now. */
  reload(): Promise<void>;
  stop(): Promise<void>;
}

export interface BrokerDeps {
  readonly platform: Platform;
  readonly log: Logger;
  readonly version: string;
}

const DROP_WARN_INTERVAL_MS = 1000;
const STOP_GRACE_MS = 1000;
const KEEPALIVE_TIMEOUT_MS = 20_000;

/** Warns at most once an interval about subscribers that do not keep up. */
function dropReporter(deps: BrokerDeps): (subscription: number, count: number) => void {
  let pending = 0;
  let lastMs = Number.NEGATIVE_INFINITY;
  return (subscription, count) => {
    pending += count;
    const nowMs = deps.platform.clock.monotonicMs();
    if (nowMs - lastMs < DROP_WARN_INTERVAL_MS) return;
    deps.log.warn("subscriber does not keep up, oldest messages dropped", { subscription, dropped: pending });
    lastMs = nowMs;
    pending = 0;
  };
}

function authorizer(jwt: JwtAuth | null): (authorization: string | undefined) => void {
  if (jwt === null) return () => undefined;
  return (authorization) => {
    if (authorization === undefined) throw new StrataError("unauthenticated", "missing-authorization", "missing authorization metadata");
    checkPermission(jwt.verify(bearerToken(authorization)), { kind: "scope", scopes: ["safekeeperdata", "pageserverapi", "admin"] });
  };
}

/** @throws StrataError conflict `port-in-use`, fix-input `bad-jwt-key` */
export async function startBroker(config: BrokerConfig, deps: BrokerDeps): Promise<RunningBroker> {
  const { platform, log } = deps;
  const metricsRegistry = new Metrics();
  const credentials = new Credentials({ platform, log, metrics: metricsRegistry, name: "broker", audience: "broker", reloadPeriodMs: config.tls?.reloadPeriodMs });
  const jwt = await credentials.keys(config.authPublicKeyPath);
  const certificate = config.tls === null ? null : await credentials.certificate(config.tls);
  const metrics = brokerMetrics(metricsRegistry);
  const reportDrop = dropReporter(deps);
  const registry = new Registry(config, {
    dropped: (subscriber, count) => {
      metrics.dropped.inc(count);
      reportDrop(subscriber.id, count);
    },
  });

  const grpc = new Server({ "grpc.keepalive_time_ms": config.http2KeepaliveIntervalMs, "grpc.keepalive_timeout_ms": config.http2KeepaliveTimeoutMs ?? KEEPALIVE_TIMEOUT_MS, "grpc.max_receive_message_length": 1 << 20 });
  grpc.addService(BROKER_METHODS, brokerServiceHandlers({ clock: platform.clock, registry, metrics, log, authorize: authorizer(jwt) }));
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure());

  const app = createHttpApp({ role: "broker", log, auth: jwt === null ? null : { jwt }, metrics: metricsRegistry, version: deps.version, clock: platform.clock, random: platform.random });
  const http = serveHttp(app, { host: "127.0.0.1", port: 0 });
  const ports = await listenPorts(config, { certificate, http1Port: http.port, onHttp2: (socket) => injector.injectConnection(socket) }).catch(async (error: unknown) => {
    await http.stop();
    throw error;
  });
  log.info("broker listens", { host: config.listenHost, port: ports.main.port, httpsPort: ports.secure?.port ?? null });
  return {
    port: ports.main.port,
    httpsPort: ports.secure?.port ?? null,
    reload: () => credentials.reload(),
    async stop() {
      await credentials.stop();
      injector.drain(STOP_GRACE_MS);
      await ports.main.close();
      await ports.secure?.close();
      injector.destroy();
      grpc.forceShutdown();
      await http.stop();
    },
  };
}

/** The certificate is for the second port where there is one, else for the first. */
async function listenPorts(config: BrokerConfig, on: Pick<SharedPortOptions, "http1Port" | "onHttp2"> & { readonly certificate: Certificate | null }): Promise<{ main: SharedPort; secure: SharedPort | null }> {
  const { certificate, http1Port, onHttp2 } = on;
  const { httpsAddress = null, prefaceTimeoutMs } = config;
  if (httpsAddress !== null && certificate === null) throw new StrataError("fix-input", "certificate-missing", "TLS needs --ssl-cert-file and --ssl-key-file");
  const listen = async (address: { host: string; port: number }, isSecure: boolean): Promise<SharedPort> => {
    const shared = await listenShared({ ...address, tls: isSecure ? (certificate?.current ?? null) : null, http1Port, onHttp2, ...(prefaceTimeoutMs === undefined ? {} : { prefaceTimeoutMs }) });
    if (isSecure) certificate?.onChange((tls) => shared.reloadTls(tls));
    return shared;
  };
  const main = await listen({ host: config.listenHost, port: config.listenPort }, httpsAddress === null);
  try {
    return { main, secure: httpsAddress === null ? null : await listen(httpsAddress, true) };
  } catch (error) {
    await main.close();
    throw error;
  }
}
