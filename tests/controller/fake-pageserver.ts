import { Hono } from "hono";

/** Keeps what it is told, as a pageserver would, and answers in the peer's words. */
export class FakePageserver {
  readonly locations = new Map<string, Record<string, unknown>>();
  readonly calls: string[] = [];
  /** Shard, moment, and limit of each journey asked for. */
  readonly travels: string[] = [];
  /** Status with which the next requests are refused. */
  failWith: number | null = null;
  readonly #server: Bun.Server<undefined>;

  constructor() {
    const app = new Hono();
    app.use(async (context, next) => {
      this.calls.push(`${context.req.method} ${context.req.path}`);
      if (this.failWith !== null && !context.req.path.endsWith("/status")) return context.json({ msg: "refused" }, this.failWith as 500);
      await next();
      return undefined;
    });
    app.get("/v1/status", (context) => context.json({ id: 1 }));
    app.get("/v1/location_config", (context) => context.json({ tenant_shards: [...this.locations] }));
    app.put("/v1/tenant/:id/location_config", async (context) => {
      const body = (await context.req.json()) as Record<string, unknown>;
      if (body.mode === "Detached") this.locations.delete(context.req.param("id"));
      else this.locations.set(context.req.param("id"), body);
      return context.json({ shards: [] });
    });
    app.post("/v1/tenant/:id/timeline", async (context) => context.json({ ...((await context.req.json()) as object), ancestor_lsn: "0/100", on: context.req.param("id") }, 201));
    app.delete("/v1/tenant/:id/timeline/:timeline", (context) => context.body(null, 202));
    app.delete("/v1/tenant/:id", (context) => {
      this.locations.delete(context.req.param("id"));
      return context.body(null, 200);
    });
    app.put("/v1/tenant/:id/time_travel_remote_storage", (context) => {
      this.travels.push(`${context.req.param("id")} ${context.req.query("travel_to")} ${context.req.query("done_if_after")}`);
      return context.json(null);
    });
    app.get("/v1/tenant/:id/timeline", (context) => context.json([{ tenant: context.req.param("id"), query: context.req.query("x") ?? null }]));
    this.#server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: app.fetch });
  }

  get port(): number {
    return this.#server.port as number;
  }

  stop(): Promise<void> {
    return this.#server.stop(true);
  }

  register(nodeId: number, az = "a"): Record<string, unknown> {
    return { node_id: nodeId, listen_pg_addr: "127.0.0.1", listen_pg_port: 6400, listen_http_addr: "127.0.0.1", listen_http_port: this.port, availability_zone_id: az };
  }
}
