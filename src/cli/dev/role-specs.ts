/** The command lines and config files with which `dev` starts each role: what an operator would write. */
import { join } from "node:path";
import type { FileSystem } from "../../platform/files.ts";
import { type Branch, type Cluster, type Endpoint, layout } from "./cluster-file.ts";

const HOST = "127.0.0.1";
const PAGESERVER_ID = 1;
/** What people expect; the peer's default, cloud_admin, is the roles' own. */
const SUPERUSER = "postgres";

export interface RoleArgs {
  readonly name: string;
  readonly args: readonly string[];
}

function brokerUrl(cluster: Cluster): string {
  return `http://${HOST}:${cluster.ports.broker}`;
}

export function brokerArgs(cluster: Cluster): RoleArgs {
  return { name: "broker", args: ["--role", "broker", "--listen-addr", `${HOST}:${cluster.ports.broker}`] };
}

export function safekeeperArgs(cluster: Cluster, directory: string): RoleArgs[] {
  return cluster.ports.safekeepers.map(({ pg, http }, index) => ({
    name: `safekeeper-${index + 1}`,
    args: [
      "--role", "safekeeper", "--id", String(index + 1), "--datadir", layout(directory).safekeeper(index + 1),
      "--listen-pg", `${HOST}:${pg}`, "--listen-http", `${HOST}:${http}`, "--broker-endpoint", brokerUrl(cluster), "--availability-zone", "local",
      "--remote-storage", `{ local_path = ${tomlString(join(layout(directory).objectStore, "safekeeper"))} }`, "--peer-recovery", "true",
    ],
  }));
}

export function controllerArgs(cluster: Cluster, directory: string): RoleArgs {
  const args = ["--role", "controller", "--listen", `${HOST}:${cluster.ports.controller}`, "--datadir", layout(directory).controller, "--pg-version", String(cluster.pgVersion), "--heartbeat-interval", "1s"];
  if (cluster.databaseUrl !== null) args.push("--database-url", cluster.databaseUrl);
  if (cluster.pgBinDir !== null) args.push("--pg-bin-dir", cluster.pgBinDir);
  return { name: "controller", args };
}

export function pageserverArgs(directory: string): RoleArgs {
  return { name: "pageserver", args: ["--role", "pageserver", "--workdir", layout(directory).pageserver] };
}

function tomlString(value: string): string {
  return JSON.stringify(value);
}

/** Writes pageserver.toml, identity.toml and metadata.json. @param extra lines added to pageserver.toml */
export async function writePageserverConfig(files: FileSystem, cluster: Cluster, options: { directory: string; extra: string }): Promise<void> {
  const paths = layout(options.directory);
  const { pg, http } = cluster.ports.pageserver;
  const toml = [
    `listen_pg_addr = ${tomlString(`${HOST}:${pg}`)}`,
    `listen_http_addr = ${tomlString(`${HOST}:${http}`)}`,
    `broker_endpoint = ${tomlString(brokerUrl(cluster))}`,
    `control_plane_api = ${tomlString(`http://${HOST}:${cluster.ports.controller}/upcall/v1/`)}`,
    `availability_zone = "local"`,
    `superuser = ${tomlString(SUPERUSER)}`,
    ...(cluster.pgBinDir === null ? [] : [`pg_distrib_dir = ${tomlString(cluster.pgBinDir)}`]),
    `remote_storage = { local_path = ${tomlString(join(paths.objectStore, "pageserver"))} }`,
    options.extra,
    "",
  ];
  await files.makeDirectory(paths.pageserver);
  await writeText(files, join(paths.pageserver, "pageserver.toml"), toml.join("\n"));
  await writeText(files, join(paths.pageserver, "identity.toml"), `id = ${PAGESERVER_ID}\n`);
  const metadata = { host: HOST, port: pg, http_host: HOST, http_port: http, other: { availability_zone_id: "local" } };
  await writeText(files, join(paths.pageserver, "metadata.json"), JSON.stringify(metadata));
}

async function writeText(files: FileSystem, path: string, text: string): Promise<void> {
  const file = await files.open(path, "truncate");
  await file.write(new TextEncoder().encode(text), 0);
  await file.close();
}

export function computeArgs(cluster: Cluster, directory: string, target: { endpoint: Endpoint; branch: Branch }): RoleArgs {
  const { endpoint, branch } = target;
  const safekeepers = cluster.ports.safekeepers.map(({ pg }) => `${HOST}:${pg}`).join(",");
  const args = [
    "--role", "compute", "--datadir", layout(directory).endpoint(endpoint.name), "--tenant-id", cluster.tenantId, "--timeline-id", branch.timelineId,
    "--safekeepers", safekeepers, "--pageserver", `${HOST}:${cluster.ports.pageserver.pg}`, "--listen-pg", `${HOST}:${endpoint.pgPort}`,
    "--listen-http", `${HOST}:${endpoint.httpPort}`, "--pg-version", String(cluster.pgVersion), "--superuser", SUPERUSER,
  ];
  if (endpoint.replica) args.push("--mode", "replica");
  if (cluster.pgBinDir !== null) args.push("--pg-bin-dir", cluster.pgBinDir);
  for (const [name, value] of Object.entries(cluster.settings)) args.push("--setting", `${name}=${value}`);
  return { name: `endpoint-${endpoint.name}`, args };
}
