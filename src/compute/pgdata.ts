/** Where a compute's PostgreSQL has its files. */
import type { Logger } from "../observability/log.ts";
import { canReach, type PostgresUser } from "../platform/postgres-binaries.ts";
import { platformTemporaryDirectory } from "../platform/temporary-directory.ts";

export interface PgData {
  readonly path: string;
  /** Not below our own directory: to be removed when the compute ends. */
  readonly temporary: boolean;
}

/**
 * `pgdata` below our directory; or, when the account PostgreSQL runs as cannot get there (we are root, and it lies below
 * a home directory), a place of the same compute among the temporary files. The directory is disposable either way.
 */
export async function choosePgData(dataDirectory: string, user: PostgresUser | null, log: Logger): Promise<PgData> {
  const beside = `${dataDirectory}/pgdata`;
  if (await canReach(user, beside)) return { path: beside, temporary: false };
  const elsewhere = `${platformTemporaryDirectory()}/strata-compute-${Bun.hash(dataDirectory).toString(16)}`;
  log.info("PostgreSQL's account cannot reach the data directory: using a temporary one", { dataDirectory, used: elsewhere });
  return { path: elsewhere, temporary: true };
}
