/**
 * The controller's own PostgreSQL, for installations that bring none: an ordinary cluster with fsync on, reached by a
 * Unix socket only. It is initialized under a temporary name first, so that a crash never leaves half a cluster.
 */
import { join } from "node:path";
import type { Logger } from "../../observability/log.ts";
import type { Platform } from "../../platform/platform.ts";
import { findPostgresBinaries, giveTo, initdb, resolvePostgresUser } from "../../platform/postgres-binaries.ts";
import { type PostgresProcess, startPostgres } from "../../platform/postgres-process.ts";
import { makeSocketDirectory } from "../../platform/socket-directory.ts";
import type { ControllerConfig } from "../config.ts";

const SUPERUSER = "controller";
const SOCKET_PORT = 5432;
const STOP_TIMEOUT_MS = 20_000;

/** Small: it holds a few megabytes, and shares its machine with everything else. */
const SETTINGS = { shared_buffers: "16MB", max_connections: "20", fsync: "on", full_page_writes: "on", max_wal_size: "128MB" };

export interface PrivateDatabase {
  /** Host is the socket's directory. */
  readonly connection: { readonly host: string; readonly port: number; readonly username: string; readonly database: string };
  readonly process: PostgresProcess;
  stop(): Promise<void>;
}

/** @throws StrataError not-found `postgres-binaries-missing`, unavailable `initdb-failed`, `postgres-start-failed` */
export async function startPrivateDatabase(config: ControllerConfig, platform: Platform, log: Logger): Promise<PrivateDatabase> {
  const { files } = platform;
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
  const socket = await makeSocketDirectory(platform, base, user);
  const process = await startPostgres({
    binaries,
    user,
    dataDirectory,
    listenAddresses: "",
    port: SOCKET_PORT,
    socketDirectory: socket.path,
    settings: SETTINGS,
    onLogLine: (line) => log.debug("private database", { line }),
  });
  return {
    connection: { host: socket.path, port: SOCKET_PORT, username: SUPERUSER, database: "postgres" },
    process,
    async stop() {
      await process.stop("fast", STOP_TIMEOUT_MS);
      await socket.remove();
    },
  };
}
