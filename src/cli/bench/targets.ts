/** The pageserver under load: which of its timelines, and connections to it. */
import { z } from "zod";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString, parseLsn } from "../../kit/lsn.ts";
import { HttpClient } from "../../http/client.ts";
import { keySpaceSchema } from "../../pageserver/api/layers.ts";
import type { Platform } from "../../platform/platform.ts";
import { PgClient } from "../../wire/client.ts";
import type { OptionValues } from "../options/option-table.ts";
import type { LOAD_OPTIONS } from "./bench-options.ts";

export interface Target {
  readonly tenantId: string;
  readonly timelineId: string;
  /** Of its last record when the load begins. */
  readonly lsn: Lsn;
}

/** It is collected relation by relation. */
const KEYSPACE_TIMEOUT_MS = 600_000;

// Of these replies only what is needed here, so that other versions' are read as well.
const tenantsSchema = z.array(z.object({ id: z.string() }));
const timelineSchema = z.object({ timeline_id: z.string(), last_record_lsn: z.string() });

export class PageserverUnderLoad {
  readonly #http: HttpClient;
  readonly #platform: Platform;
  readonly #address: { host: string; port: number };
  readonly #user: string;
  readonly #token: string | null;

  constructor(values: OptionValues<typeof LOAD_OPTIONS>, platform: Platform) {
    const url = parseUrl(values.pageServiceConnstring);
    this.#platform = platform;
    this.#address = { host: url.hostname.replace(/^\[|\]$/g, ""), port: url.port === "" ? 6400 : Number(url.port) };
    this.#user = decodeURIComponent(url.username) || "postgres";
    this.#token = values.pageserverJwt;
    this.#http = new HttpClient({ baseUrl: values.mgmtApiEndpoint.replace(/\/$/, ""), clock: platform.clock, ...(values.pageserverJwt === null ? {} : { token: values.pageserverJwt }) });
  }

  /** Those named, `TENANT/TIMELINE`; without any, all there are. @throws StrataError not-found `no-targets` */
  async targets(named: readonly string[], limit: number | null): Promise<Target[]> {
    const found: Target[] = [];
    for (const name of named) found.push(await this.#named(name));
    if (named.length === 0) {
      for (const { id } of await this.#http.json({ method: "GET", path: "/v1/tenant" }, tenantsSchema)) {
        const timelines = await this.#http.json({ method: "GET", path: `/v1/tenant/${id}/timeline` }, z.array(timelineSchema));
        found.push(...timelines.map((timeline) => asTarget(id, timeline)));
      }
    }
    if (found.length === 0) throw new StrataError("not-found", "no-targets", "the pageserver has no timelines");
    return found.slice(0, limit ?? undefined);
  }

  async #named(name: string): Promise<Target> {
    const match = /^([0-9a-f]{32}(?:-[0-9a-f]{4})?)\/([0-9a-f]{32})$/.exec(name);
    if (match === null) throw new StrataError("fix-input", "usage", `"${name}" is not of the form TENANT/TIMELINE`);
    return asTarget(match[1], await this.#http.json({ method: "GET", path: `/v1/tenant/${match[1]}/timeline/${match[2]}` }, timelineSchema));
  }

  /** Ranges of keys, 36 hexadecimal digits each end. */
  async keySpace({ tenantId, timelineId, lsn }: Target): Promise<readonly (readonly [string, string])[]> {
    const path = `/v1/tenant/${tenantId}/timeline/${timelineId}/keyspace`;
    return (await this.#http.json({ method: "GET", path, query: { at_lsn: lsnToString(lsn) }, timeoutMs: KEYSPACE_TIMEOUT_MS }, keySpaceSchema)).keys;
  }

  /** Begins to sample at once. */
  async flameGraph(seconds: number): Promise<string> {
    const reply = await this.#http.raw({ method: "GET", path: "/profile/cpu", query: { format: "svg", seconds }, timeoutMs: (seconds + 30) * 1000 });
    return await reply.text();
  }

  /** `stop` ends it at once, whatever `work` waits for. */
  async whileConnected(stop: AbortSignal, work: (connection: PgClient) => Promise<void>): Promise<void> {
    let connection: PgClient | null = null;
    const end = (): void => connection?.destroy();
    stop.addEventListener("abort", end, { once: true });
    try {
      connection = await this.#connect(stop);
      await work(connection);
    } catch (error) {
      if (!stop.aborted) throw error;
    } finally {
      stop.removeEventListener("abort", end);
      end();
    }
  }

  async #connect(signal: AbortSignal): Promise<PgClient> {
    const { network, clock, random } = this.#platform;
    return await PgClient.connect(network, { address: this.#address, parameters: { user: this.#user, database: "postgres", application_name: "strata bench" }, clock, random, signal, ...(this.#token === null ? {} : { password: this.#token }) });
  }
}

function asTarget(tenantId: string, timeline: z.output<typeof timelineSchema>): Target {
  return { tenantId, timelineId: timeline.timeline_id, lsn: parseLsn(timeline.last_record_lsn) };
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || !/^postgres(ql)?:$/.test(url.protocol)) throw new StrataError("fix-input", "usage", `"${text}" is not of the form postgres://user@host:port`);
  return url;
}
