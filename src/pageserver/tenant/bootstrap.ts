/**
 * The first content of a root timeline: initdb in a temporary directory that PostgreSQL's user can reach, whose files
 * are imported and then deleted.
 */
import type { PgMajor } from "../../postgres/versions/major.ts";
import type { Platform } from "../../platform/platform.ts";
import { findPostgresBinaries, giveTo, initdb, resolvePostgresUser } from "../../platform/postgres-binaries.ts";

export interface InitdbSettings {
  /** Directory of PostgreSQL's programs; null: found by itself. */
  readonly pgDistribDirectory: string | null;
  /** Where the temporary directory is made: must be reachable for the user PostgreSQL runs as. */
  readonly temporaryDirectory: string;
  readonly superuser: string;
  readonly dataChecksums: boolean;
  readonly locale: string;
}

/** Runs `work` on a fresh data directory, which is gone afterwards. @throws StrataError unavailable `initdb-failed`, not-found `postgres-binaries-missing` */
export async function withFreshDatadir<T>(settings: InitdbSettings, version: PgMajor, context: { readonly platform: Platform; readonly work: (directory: string) => Promise<T> }): Promise<T> {
  const { files, random } = context.platform;
  const binaries = await findPostgresBinaries({ major: version, ...(settings.pgDistribDirectory === null ? {} : { binDirectory: settings.pgDistribDirectory }) });
  const user = await resolvePostgresUser();
  const directory = `${settings.temporaryDirectory}/strata-initdb-${random.bytes(8).toHex()}`;
  await files.makeDirectory(directory);
  try {
    await giveTo(user, directory);
    const dataDirectory = `${directory}/data`;
    await initdb({ binaries, user, dataDirectory, superuser: settings.superuser, dataChecksums: settings.dataChecksums, locale: settings.locale });
    return await context.work(dataDirectory);
  } finally {
    await files.removeTree(directory);
  }
}
