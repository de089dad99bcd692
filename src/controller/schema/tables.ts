/**
 * The controller's tables, column for column those of the peer's storage controller, so that an existing database
 * can be taken over. The SQL that makes them is in /migrations, run at start.
 */
import { bigint, boolean, integer, pgTable, primaryKey, smallint, text, timestamp, varchar } from "drizzle-orm/pg-core";

export const tenantShards = pgTable("tenant_shards", {
  tenantId: varchar("tenant_id").notNull(),
  shardNumber: integer("shard_number").notNull(),
  /** 0 for an unsharded tenant. */
  shardCount: integer("shard_count").notNull(),
  shardStripeSize: integer("shard_stripe_size").notNull(),
  /** Of the newest attachment; null for a tenant never attached. */
  generation: integer("generation"),
  /** Node that holds that generation. */
  generationPageserver: bigint("generation_pageserver", { mode: "number" }),
  /** JSON of a placement policy, e.g. `{"Attached":1}`. */
  placementPolicy: varchar("placement_policy").notNull(),
  /** 0 idle, 1 a split is under way. */
  splitting: smallint("splitting").notNull(),
  /** JSON of the tenant's configuration. */
  config: text("config").notNull(),
  /** JSON of a scheduling policy, e.g. `"Active"`. */
  schedulingPolicy: varchar("scheduling_policy").notNull().default('"Active"'),
  preferredAzId: varchar("preferred_az_id"),
}, (table) => [primaryKey({ columns: [table.tenantId, table.shardNumber, table.shardCount] })]);

export const nodes = pgTable("nodes", {
  nodeId: bigint("node_id", { mode: "number" }).primaryKey(),
  schedulingPolicy: varchar("scheduling_policy").notNull(),
  listenHttpAddr: varchar("listen_http_addr").notNull(),
  listenHttpPort: integer("listen_http_port").notNull(),
  listenHttpsPort: integer("listen_https_port"),
  listenPgAddr: varchar("listen_pg_addr").notNull(),
  listenPgPort: integer("listen_pg_port").notNull(),
  availabilityZoneId: varchar("availability_zone_id").notNull(),
});

export const metadataHealth = pgTable("metadata_health", {
  tenantId: varchar("tenant_id").notNull(),
  shardNumber: integer("shard_number").notNull(),
  shardCount: integer("shard_count").notNull(),
  healthy: boolean("healthy").notNull().default(true),
  lastScrubbedAt: timestamp("last_scrubbed_at", { withTimezone: true }).notNull().defaultNow(),
}, (table) => [primaryKey({ columns: [table.tenantId, table.shardNumber, table.shardCount] })]);

export const controllers = pgTable("controllers", {
  address: varchar("address").notNull(),
  startedAt: timestamp("started_at", { withTimezone: true }).notNull(),
}, (table) => [primaryKey({ columns: [table.address, table.startedAt] })]);

export const safekeepers = pgTable("safekeepers", {
  id: bigint("id", { mode: "number" }).primaryKey(),
  regionId: text("region_id").notNull(),
  version: bigint("version", { mode: "number" }).notNull(),
  host: text("host").notNull(),
  port: integer("port").notNull(),
  httpPort: integer("http_port").notNull(),
  availabilityZoneId: text("availability_zone_id").notNull(),
  schedulingPolicy: varchar("scheduling_policy").notNull().default("pause"),
});
