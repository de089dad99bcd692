-- The storage controller's tables. Each migration runs once, in name order, in a transaction of its own.
CREATE TABLE tenant_shards (
  tenant_id VARCHAR NOT NULL,
  shard_number INTEGER NOT NULL,
  shard_count INTEGER NOT NULL,
  shard_stripe_size INTEGER NOT NULL,
  generation INTEGER,
  generation_pageserver BIGINT,
  placement_policy VARCHAR NOT NULL,
  splitting SMALLINT NOT NULL,
  config TEXT NOT NULL,
  scheduling_policy VARCHAR NOT NULL DEFAULT '"Active"',
  preferred_az_id VARCHAR,
  PRIMARY KEY (tenant_id, shard_number, shard_count)
);
CREATE INDEX tenant_shards_tenant_id ON tenant_shards (tenant_id);

CREATE TABLE nodes (
  node_id BIGINT PRIMARY KEY NOT NULL,
  scheduling_policy VARCHAR NOT NULL,
  listen_http_addr VARCHAR NOT NULL,
  listen_http_port INTEGER NOT NULL,
  listen_pg_addr VARCHAR NOT NULL,
  listen_pg_port INTEGER NOT NULL,
  availability_zone_id VARCHAR NOT NULL
);

CREATE TABLE metadata_health (
  tenant_id VARCHAR NOT NULL,
  shard_number INTEGER NOT NULL,
  shard_count INTEGER NOT NULL,
  healthy BOOLEAN NOT NULL DEFAULT TRUE,
  last_scrubbed_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  PRIMARY KEY (tenant_id, shard_number, shard_count)
);

CREATE TABLE controllers (
  address VARCHAR NOT NULL,
  started_at TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (address, started_at)
);

CREATE TABLE safekeepers (
  id BIGINT PRIMARY KEY NOT NULL,
  region_id TEXT NOT NULL,
  version BIGINT NOT NULL,
  host TEXT NOT NULL,
  port INTEGER NOT NULL,
  http_port INTEGER NOT NULL,
  availability_zone_id TEXT NOT NULL,
  scheduling_policy VARCHAR NOT NULL DEFAULT 'pause'
);
