/**
 * The controller's own PostgreSQL, for installations that bring none: an ordinary cluster with fsync on, reached by a
 * Unix socket only. It is initialized under a temporary name first, so that a crash never leaves half a cluster.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Logger } from "../../observability/log.ts";
import type { FileSystem } from "../../platform/files.ts";
import { findPostgresBinaries, giveTo, initdb, resolvePostgresUser } from "../../platform/postgres-binaries.ts";
import { type PostgresProcess, startPostgres } from "../../platform/postgres-process.ts";
import type { ControllerConfig } from "../config.ts";

const SUPERUSER = "controller";
const SOCKET_PORT = 5432;
const STOP_TIMEOUT_MS = 20_000;

/** A socket's whole path has to fit sockaddr_un (108 bytes). */
const SOCKET_DIRECTORY_MAX_BYTES = 90;

async function makeSocketDirectory(base: string): Promise<string> {
  return Buffer.byteLength(base) <= SOCKET_DIRECTORY_MAX_BYTES ? base : await mkdtemp(join(tmpdir(), "strata-controller-"));
}

/** Small: it holds a few megabytes, and shares its machine with everything else. */
const SETTINGS = { shared_buffers: "16MB", max_connections: "20", fsync: "on", full_page_writes: "on", max_wal_size: "128MB" };

export interface PrivateDatabase {
  /** Host is the socket's directory. */
  readonly connection: { readonly host: string; readonly port: number; readonly username: string; readonly database: string };
  readonly process: PostgresProcess;
  stop(): Promise<void>;
}

/** @throws StrataError not-found `postgres-binaries-missing`, unavailable `initdb-failed`, `postgres-start-failed` */
export async function startPrivateDatabase(config: ControllerConfig, files: FileSystem, log: Logger): Promise<PrivateDatabase> {
  const binaries = await findPostgresBinaries({ major: config.pgMajor, ...(config.pgBinDirectory === null ? {} : { binDirectory: config.pgBinDirectory }) });
  const user = await resolvePostgresUser(config.pgUser ?? undefined);
  const base = join(config.dataDirectory, "database");
  const dataDirectory = join(base, "pgdata");
  await files.makeDirectory(base);
  await giveTo(user, base);
  if (!(await files.exists(join(dataDirectory, "PG_VERSION")))) {
    const fresh = join(base, "pgdata.new");
    await files.removeTree(fresh);
    await initdb({ binaries, user, dataDirectory: fresh, superuser: SUPERUSER, dataChecksums: true, sync: true });
    await files.rename(fresh, dataDirectory);
    await files.syncDirectory(base);
    log.info("private database initialized", { dataDirectory, version: binaries.version });
  }
  const socketDirectory = await makeSocketDirectory(base);
  await giveTo(user, socketDirectory);
  const process = await startPostgres({
    binaries,
    user,
    dataDirectory,
    listenAddresses: "",
    port: SOCKET_PORT,
    socketDirectory,
    settings: SETTINGS,
    onLogLine: (line) => log.debug("private database", { line }),
  });
  return {
    connection: { host: socketDirectory, port: SOCKET_PORT, username: SUPERUSER, database: "postgres" },
    process,
    async stop() {
      await process.stop("fast", STOP_TIMEOUT_MS);
      if (socketDirectory !== base) await rm(socketDirectory, { recursive: true, force: true });
    },
  };
}
