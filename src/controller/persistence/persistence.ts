/**
 * The controller's database: what must survive the controller. Everything else it knows it learns again from the
 * pageservers. Generations are given out here, in single statements, so two controllers can never give the same.
 */
import { and, asc, eq, isNotNull, sql } from "drizzle-orm";
import { drizzle, type PostgresJsDatabase } from "drizzle-orm/postgres-js";
import postgres, { type Sql } from "postgres";
import { StrataError } from "../../kit/errors.ts";
import type { NodeId, TenantId, TenantShardId } from "../../kit/ids.ts";
import type { Logger } from "../../observability/log.ts";
import type { NodeScheduling } from "../api/nodes.ts";
import { nodes, tenantShards } from "../schema/tables.ts";
import { type Migration, runMigrations } from "./migrations.ts";

export type TenantShardRow = typeof tenantShards.$inferSelect;
export type NodeRow = typeof nodes.$inferSelect;

/** A postgres:// URL, or the place of a private server. */
export type DatabaseAddress = string | { readonly host: string; readonly port: number; readonly username: string; readonly database: string };

const CONNECTIONS_MAX = 10;
const CONNECT_TIMEOUT_S = 10;

function ofShard(id: TenantShardId) {
  return and(eq(tenantShards.tenantId, id.tenantId), eq(tenantShards.shardNumber, id.number), eq(tenantShards.shardCount, id.count));
}

export class Persistence {
  readonly #client: Sql;
  readonly #db: PostgresJsDatabase;

  private constructor(client: Sql) {
    this.#client = client;
    this.#db = drizzle(client);
  }

  /** Connects and brings the schema up to date. @throws StrataError unavailable `database-unreachable` */
  static async open(database: DatabaseAddress, migrations: readonly Migration[], log: Logger): Promise<Persistence> {
    const options = { max: CONNECTIONS_MAX, connect_timeout: CONNECT_TIMEOUT_S, onnotice: () => undefined };
    const client = typeof database === "string" ? postgres(database, options) : postgres({ ...database, ...options });
    try {
      await client`SELECT 1`;
    } catch (error) {
      await client.end({ timeout: 1 });
      throw new StrataError("unavailable", "database-unreachable", "the controller's database cannot be reached", { cause: error });
    }
    await runMigrations(client, migrations, log);
    return new Persistence(client);
  }

  async close(): Promise<void> {
    await this.#client.end({ timeout: 5 });
  }

  listNodes(): Promise<NodeRow[]> {
    return this.#db.select().from(nodes).orderBy(asc(nodes.nodeId));
  }

  async upsertNode(row: NodeRow): Promise<void> {
    await this.#db.insert(nodes).values(row).onConflictDoUpdate({ target: nodes.nodeId, set: row });
  }

  async setNodeScheduling(nodeId: NodeId, policy: NodeScheduling): Promise<void> {
    await this.#db.update(nodes).set({ schedulingPolicy: policy }).where(eq(nodes.nodeId, nodeId));
  }

  async deleteNode(nodeId: NodeId): Promise<void> {
    await this.#db.delete(nodes).where(eq(nodes.nodeId, nodeId));
  }

  listTenantShards(): Promise<TenantShardRow[]> {
    return this.#db.select().from(tenantShards).orderBy(asc(tenantShards.tenantId), asc(tenantShards.shardNumber));
  }

  /** All shards of a tenant or none. @throws StrataError conflict `tenant-exists` */
  async insertTenantShards(rows: readonly TenantShardRow[]): Promise<void> {
    await this.#db.transaction(async (transaction) => {
      const inserted = await transaction.insert(tenantShards).values([...rows]).onConflictDoNothing().returning({ tenantId: tenantShards.tenantId });
      if (inserted.length !== rows.length) throw new StrataError("conflict", "tenant-exists", `tenant ${rows[0]?.tenantId} exists already`);
    });
  }

  /** Gives the shard its next generation, held by `nodeId`. @throws StrataError not-found `tenant-not-found` */
  async incrementGeneration(id: TenantShardId, nodeId: NodeId): Promise<number> {
    const [row] = await this.#db
      .update(tenantShards)
      .set({ generation: sql`COALESCE(${tenantShards.generation}, 0) + 1`, generationPageserver: nodeId })
      .where(ofShard(id))
      .returning({ generation: tenantShards.generation });
    if (row === undefined || row.generation === null) throw new StrataError("not-found", "tenant-not-found", `tenant ${id.tenantId} is not in the database`);
    return row.generation;
  }

  /** A node has restarted: every shard it holds gets its next generation. */
  reAttach(nodeId: NodeId): Promise<TenantShardRow[]> {
    return this.#db
      .update(tenantShards)
      .set({ generation: sql`${tenantShards.generation} + 1` })
      .where(and(eq(tenantShards.generationPageserver, nodeId), isNotNull(tenantShards.generation)))
      .returning();
  }

  async detach(id: TenantShardId): Promise<void> {
    await this.#db.update(tenantShards).set({ generationPageserver: null }).where(ofShard(id));
  }

  async updateTenant(tenantId: TenantId, set: Partial<Pick<TenantShardRow, "config" | "placementPolicy" | "schedulingPolicy" | "preferredAzId">>): Promise<void> {
    await this.#db.update(tenantShards).set(set).where(eq(tenantShards.tenantId, tenantId));
  }

  async deleteTenant(tenantId: TenantId): Promise<void> {
    await this.#db.delete(tenantShards).where(eq(tenantShards.tenantId, tenantId));
  }
}
