/** What the pageserver asks of the control plane: its attachments at start, and whether its generations are the newest. */
import type { Failpoints } from "../kit/failpoints.ts";
import { tenantShardIdToString } from "../kit/ids.ts";
import { backoffMs } from "../kit/retry.ts";
import { ControllerClient } from "../controller/api/client.ts";
import type { ReAttachResponse } from "../controller/api/upcall.ts";
import { StrataError } from "../kit/errors.ts";
import type { Logger } from "../observability/log.ts";
import type { Platform } from "../platform/platform.ts";
import type { NodeMetadata } from "./config.ts";
import type { GenerationToValidate, ValidateGenerations } from "./remote-timeline/deletion-queue.ts";

const REQUEST_TIMEOUT_MS = 10_000;
const PAUSE = { baseMs: 100, maxMs: 10_000 };

export interface ControlPlaneOptions {
  readonly platform: Platform;
  readonly log: Logger;
  /** The peer's form: ends in `/upcall/v1/`. */
  readonly api: string;
  readonly token: string | null;
  /** For https; the system's authorities are trusted without it. */
  readonly caPem?: string | undefined;
  readonly nodeId: number;
  /** With it, the pageserver registers itself in the same call. */
  readonly metadata: NodeMetadata | null;
  /** Only in testing mode. */
  readonly failpoints?: Failpoints | undefined;
}

export class ControlPlane {
  readonly #options: ControlPlaneOptions;
  readonly #client: ControllerClient;

  constructor(options: ControlPlaneOptions) {
    this.#options = options;
    const baseUrl = options.api.replace(/\/?upcall\/v1\/?$/, "").replace(/\/$/, "");
    this.#client = new ControllerClient({ baseUrl, clock: options.platform.clock, timeoutMs: REQUEST_TIMEOUT_MS, ...(options.caPem === undefined ? {} : { caPem: options.caPem }), ...(options.token === null ? {} : { token: options.token }) });
  }

  /** Asks until it is answered: without it nothing may be attached. @throws Cancelled when the signal aborts */
  async reAttach(signal: AbortSignal): Promise<ReAttachResponse["tenants"]> {
    const { platform, log, nodeId, metadata, api, failpoints } = this.#options;
    const register = metadata === null ? null : {
      node_id: nodeId, listen_pg_addr: metadata.host, listen_pg_port: metadata.port, listen_http_addr: metadata.httpHost,
      listen_http_port: metadata.httpPort, listen_https_port: metadata.httpsPort ?? null, availability_zone_id: metadata.availabilityZone,
    };
    for (let attempt = 0; ; attempt++) {
      try {
        await failpoints?.hit("control-plane-client-re-attach", signal);
        log.info("asking the control plane for attachments", { api, nodeId, register });
        return (await this.#client.reAttach({ node_id: nodeId, register }, signal)).tenants;
      } catch (error) {
        if (signal.aborted || !(error instanceof StrataError)) throw error;
        log.warn("re-attach failed, trying again", { error });
        await platform.clock.sleep(backoffMs(PAUSE, attempt, platform.random.float()), signal);
      }
    }
  }

  readonly validate: ValidateGenerations = async (requests) => {
    await this.#options.failpoints?.hit("control-plane-client-validate-sleep");
    const wanted = requests.map(({ tenantShardId, generation }) => ({ id: tenantShardIdToString(tenantShardId), gen: generation }));
    const { tenants } = await this.#client.validate({ tenants: wanted });
    const valid = new Map(tenants.map(({ id, valid: isValid }) => [id, isValid]));
    return wanted.map(({ id }) => valid.get(id) === true);
  };
}

/** Without a control plane the generations known here are the newest there are. */
export function trustLocalGenerations(current: () => ReadonlyMap<string, number>): ValidateGenerations {
  return async (requests: readonly GenerationToValidate[]) =>
    requests.map(({ tenantShardId, generation }) => current().get(tenantShardIdToString(tenantShardId)) === generation);
}
