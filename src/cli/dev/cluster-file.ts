/**
 * What `strata dev` remembers between runs, in `cluster.json`: ports, the tenant, branches and endpoints. Replaced as a
 * whole through a temporary file, so that a crash leaves the old one or the new one.
 */
import { join } from "node:path";
import { z } from "zod";
import { StrataError } from "../../kit/errors.ts";
import type { FileSystem } from "../../platform/files.ts";

const port = z.number().int().min(1).max(65_535);
const id = z.string().regex(/^[0-9a-f]{32}$/);

const branchSchema = z.object({
  name: z.string(),
  timelineId: id,
  /** Name of the branch it came from; null for the first. */
  parent: z.string().nullable(),
  /** Where on the parent, as text. */
  lsn: z.string().nullable(),
});
export type Branch = z.infer<typeof branchSchema>;

const endpointSchema = z.object({
  name: z.string(),
  branch: z.string(),
  pgPort: port,
  httpPort: port,
  /** Whether it should run: a restarted cluster starts it again. */
  wanted: z.boolean(),
  /** A standby that only reads; a branch has any number of them beside its one primary. */
  replica: z.boolean().default(false),
});
export type Endpoint = z.infer<typeof endpointSchema>;

const clusterSchema = z.object({
  version: z.literal(1),
  pgVersion: z.union([z.literal(14), z.literal(15), z.literal(16), z.literal(17)]),
  pgBinDir: z.string().nullable(),
  databaseUrl: z.string().nullable(),
  /** Lines of every endpoint's postgresql.conf. */
  settings: z.record(z.string(), z.string()).default({}),
  tenantId: id,
  ports: z.object({
    control: port,
    broker: port,
    controller: port,
    pageserver: z.object({ pg: port, http: port }),
    safekeepers: z.array(z.object({ pg: port, http: port })),
  }),
  branches: z.array(branchSchema),
  /** Asked for and perhaps made: written down before, so that no crash leaves a timeline that nobody knows. */
  pendingBranches: z.array(branchSchema).default([]),
  endpoints: z.array(endpointSchema),
});
export type Cluster = z.infer<typeof clusterSchema>;

export const MAIN_BRANCH = "main";

/** Paths inside the directory of a dev cluster. */
export function layout(directory: string) {
  return {
    clusterFile: join(directory, "cluster.json"),
    lockFile: join(directory, "dev.lock"),
    pidFile: join(directory, "dev.pid"),
    logFile: join(directory, "dev.log"),
    controller: join(directory, "controller"),
    pageserver: join(directory, "pageserver"),
    safekeeper: (number: number) => join(directory, `safekeeper-${number}`),
    objectStore: join(directory, "object-store"),
    endpoint: (name: string) => join(directory, "endpoints", name),
  };
}

/** Null when there is no cluster here yet. @throws StrataError corrupt `bad-cluster-file` */
export async function loadCluster(files: FileSystem, directory: string): Promise<Cluster | null> {
  const path = layout(directory).clusterFile;
  if (!(await files.exists(path))) return null;
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder().decode(await files.readFile(path)));
  } catch (cause) {
    throw new StrataError("corrupt", "bad-cluster-file", `${path} is not JSON`, { cause });
  }
  const parsed = clusterSchema.safeParse(json);
  if (!parsed.success) throw new StrataError("corrupt", "bad-cluster-file", `${path} is not a cluster of this version: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

export async function saveCluster(files: FileSystem, directory: string, cluster: Cluster): Promise<void> {
  const path = layout(directory).clusterFile;
  const temporary = `${path}.new`;
  const file = await files.open(temporary, "truncate");
  await file.write(new TextEncoder().encode(`${JSON.stringify(cluster, null, 2)}\n`), 0);
  await file.sync();
  await file.close();
  await files.rename(temporary, path);
  await files.syncDirectory(directory);
}

/** @throws StrataError not-found `branch-not-found` */
export function findBranch(cluster: Cluster, name: string): Branch {
  const branch = cluster.branches.find((one) => one.name === name);
  if (branch === undefined) throw new StrataError("not-found", "branch-not-found", `there is no branch "${name}" (there are: ${cluster.branches.map((one) => one.name).join(", ") || "none"})`);
  return branch;
}

const NAME = /^[a-z0-9][a-z0-9_-]{0,62}$/;

/** Branch and endpoint names become directories and metrics labels. @throws StrataError fix-input `bad-name` */
export function checkName(name: string): string {
  if (!NAME.test(name)) throw new StrataError("fix-input", "bad-name", `"${name}" is not a name: small letters, digits, "-" and "_", 63 at most`);
  return name;
}
