/** The compute's HTTP interface: /status, /metrics, /metrics.json. */
import { z } from "zod";
import { lsnToString } from "../../kit/lsn.ts";
import { createHttpApp, type HttpApp } from "../../http/app.ts";
import { jsonReply } from "../../http/route.ts";
import { serveHttp } from "../../http/serve.ts";
import type { Logger } from "../../observability/log.ts";
import type { Metrics } from "../../observability/metrics.ts";
import type { Platform } from "../../platform/platform.ts";
import { type ComputeStatus, computeStatusSchema } from "../api/status.ts";
import type { ComputeConfig } from "../config.ts";
import type { PageserverPositions } from "../proposer/pageserver-positions.ts";
import type { ComputeState } from "../state.ts";

export interface ComputeHttp {
  readonly port: number;
  close(): Promise<void>;
}

export interface ComputeHttpOptions {
  readonly config: ComputeConfig;
  readonly state: ComputeState;
  readonly metrics: Metrics;
  readonly platform: Platform;
  readonly log: Logger;
  readonly version: string;
}

/** @throws StrataError conflict `port-in-use` */
export function serveComputeHttp(options: ComputeHttpOptions): ComputeHttp {
  const { httpHost, httpPort } = options.config;
  const server = serveHttp(computeHttpApp(options), { host: httpHost ?? "127.0.0.1", port: httpPort });
  return { port: server.port, close: async () => void (await server.stop()) };
}

export function computeHttpApp(options: ComputeHttpOptions): HttpApp {
  const { config, state, metrics, platform, log, version } = options;
  const app = createHttpApp({ role: "compute", log, auth: null, metrics, version, clock: platform.clock, random: platform.random });
  app.route(
    {
      method: "get", path: "/v1/compute/status", permission: { kind: "public" }, summary: "Phase, positions of the log, safekeepers",
      responses: { 200: { description: "the compute's state", schema: computeStatusSchema } },
    },
    () => jsonReply(200, statusOf(config, state)),
  );
  app.route(
    {
      method: "get", path: "/metrics.json", permission: { kind: "public" }, summary: "Milliseconds each step of the start took",
      responses: { 200: { description: "step → milliseconds", schema: z.record(z.string(), z.number()) } },
    },
    () => jsonReply(200, { ...state.stepMs }),
  );
  return app;
}

function statusOf(config: ComputeConfig, state: ComputeState): z.infer<typeof computeStatusSchema> {
  const proposer = state.proposer();
  const { quota } = state;
  return {
    status: state.phase,
    step: state.currentStep,
    error: state.error,
    tenant: config.tenantId,
    timeline: config.timelineId,
    proposer: proposer === null ? null : {
      term: proposer.term,
      elected: proposer.elected,
      commit_lsn: lsnToString(proposer.commitLsn),
      flush_lsn: lsnToString(proposer.flushLsn),
      truncate_lsn: lsnToString(proposer.truncateLsn),
      pageserver: pageserverOf(proposer.pageserver),
      throttled: proposer.throttled,
      safekeepers: proposer.safekeepers.map(({ address, state: link, flushLsn }) => ({ address, state: link, flush_lsn: lsnToString(flushLsn) })),
    },
    size_quota: quota === null ? null : { state: quota.state, limit: quota.limitBytes },
  };
}

function pageserverOf(positions: PageserverPositions): NonNullable<ComputeStatus["proposer"]>["pageserver"] {
  if (!positions.known) return null;
  const { lastReceivedLsn, diskConsistentLsn, remoteConsistentLsn, sizeBytes } = positions;
  return {
    last_received_lsn: lsnToString(lastReceivedLsn), disk_consistent_lsn: lsnToString(diskConsistentLsn), remote_consistent_lsn: lsnToString(remoteConsistentLsn),
    current_timeline_size: sizeBytes,
  };
}
