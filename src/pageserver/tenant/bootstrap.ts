/**
 * The first content of a root timeline: initdb in a temporary directory that PostgreSQL's user can reach, or what an earlier initdb
 * made, from its archive in object storage. The files are imported and then deleted.
 *
 * The archive is in object storage before anything of the timeline is: from then on the timeline can be made again, the same, from
 * archive and WAL alone. So a creation that was cut short goes on from the archive it finds: no other initdb is run in its place, nor
 * an archive ever replaced that WAL may depend on.
 */
import { StrataError } from "../../kit/errors.ts";
import type { Failpoints } from "../../kit/failpoints.ts";
import type { TimelineId } from "../../kit/ids.ts";
import type { Logger } from "../../observability/log.ts";
import type { PgMajor } from "../../postgres/versions/major.ts";
import type { Platform } from "../../platform/platform.ts";
import { findPostgresBinaries, giveTo, initdb, resolvePostgresUser } from "../../platform/postgres-binaries.ts";
import type { StorageCounts } from "../counts/storage-counts.ts";
import { packInitdb, unpackInitdb } from "../import/initdb-archive.ts";
import { inspectDatadir, type ShutDownDatadir } from "../import/import-datadir.ts";
import { withImportDirectory } from "../import/import-directory.ts";
import type { InitdbObjects } from "../remote-timeline/initdb-objects.ts";

export interface InitdbSettings {
  /** Directory of PostgreSQL's programs; null: found by itself. */
  readonly pgDistribDirectory: string | null;
  /** Where the temporary directory is made: must be reachable for the user PostgreSQL runs as. */
  readonly temporaryDirectory: string;
  readonly superuser: string;
  readonly dataChecksums: boolean;
  readonly locale: string;
}

export interface BootstrapRequest {
  readonly timelineId: TimelineId;
  /** Null: that of the archive, or the default. */
  readonly pgVersion: PgMajor | null;
  readonly defaultPgVersion: PgMajor;
  /** The timeline whose archive is to be used instead of a fresh initdb. */
  readonly existingInitdb: TimelineId | null;
}

export interface BootstrapContext {
  readonly platform: Platform;
  readonly log: Logger;
  readonly workDirectory: string;
  readonly settings: InitdbSettings;
  readonly archives: InitdbObjects;
  readonly failpoints?: Failpoints | undefined;
  readonly counts: StorageCounts["initdb"];
}

async function counted({ counts, platform: { clock } }: BootstrapContext, run: () => Promise<void>): Promise<void> {
  const startMs = clock.monotonicMs();
  counts.running++;
  try {
    await run();
  } finally {
    counts.running--;
    counts.seconds.recordMs(clock.monotonicMs() - startMs);
  }
}

type Work<T> = (directory: string, datadir: ShutDownDatadir) => Promise<T>;

/**
 * Runs `work` on the data directory, which is gone afterwards; its archive is in object storage before.
 * @throws StrataError not-found `initdb-archive-not-found`, `postgres-binaries-missing`; fix-input `wrong-version`; conflict
 *  `initdb-archive-exists`; corrupt `bad-initdb-archive`, `object-too-large`; unavailable `initdb-failed`
 */
export async function withFirstContent<T>(request: BootstrapRequest, context: BootstrapContext, work: Work<T>): Promise<T> {
  const { timelineId, existingInitdb } = request;
  const { archives, log } = context;
  const own = await archives.find(timelineId);
  if (existingInitdb === null && own === null) return await withFreshDatadir(request, context, work);
  // Told to use one, or found what an earlier attempt left.
  const archive = existingInitdb === null || existingInitdb === timelineId ? (own ?? (await archives.get(timelineId))) : await archives.get(existingInitdb);
  log.info("a timeline begins from an initdb archive", { timelineId, of: existingInitdb ?? timelineId, sizeBytes: archive.length });
  return await withArchivedDatadir(archive, { request, context }, async (directory, datadir) => {
    if (own === null) await archives.put(timelineId, archive);
    return await work(directory, datadir);
  });
}

async function withArchivedDatadir<T>(archive: Uint8Array, { request, context }: { readonly request: BootstrapRequest; readonly context: BootstrapContext }, work: Work<T>): Promise<T> {
  const { platform: { files } } = context;
  return await withImportDirectory(context.platform, context.workDirectory, async (directory) => {
    await unpackInitdb(files, archive, directory);
    const datadir = await inspectDatadir(files, directory).catch((cause: unknown) => {
      throw new StrataError("corrupt", "bad-initdb-archive", "initdb archive: no data directory that was shut down is in it", { cause });
    });
    const { version } = datadir.control;
    if (request.pgVersion !== null && request.pgVersion !== version) throw wrongVersion(request, version);
    return await work(directory, datadir);
  });
}

function wrongVersion({ timelineId, pgVersion, existingInitdb }: BootstrapRequest, found: PgMajor): StrataError {
  if (existingInitdb !== null) return new StrataError("fix-input", "wrong-version", `the initdb archive is of PostgreSQL ${found}, not ${pgVersion}`);
  return new StrataError("conflict", "initdb-archive-exists", `object storage has an initdb archive of PostgreSQL ${found} for timeline ${timelineId}: it is not replaced by one of PostgreSQL ${pgVersion}`);
}

async function withFreshDatadir<T>(request: BootstrapRequest, context: BootstrapContext, work: Work<T>): Promise<T> {
  const { settings, platform: { files, random }, archives } = context;
  const binaries = await findPostgresBinaries({ major: request.pgVersion ?? request.defaultPgVersion, ...(settings.pgDistribDirectory === null ? {} : { binDirectory: settings.pgDistribDirectory }) });
  const user = await resolvePostgresUser();
  const directory = `${settings.temporaryDirectory}/strata-initdb-${random.bytes(8).toHex()}`;
  await files.makeDirectory(directory);
  try {
    await giveTo(user, directory);
    const dataDirectory = `${directory}/data`;
    await counted(context, () => initdb({ binaries, user, dataDirectory, superuser: settings.superuser, dataChecksums: settings.dataChecksums, locale: settings.locale }));
    const datadir = await inspectDatadir(files, dataDirectory);
    const archive = await packInitdb(files, dataDirectory);
    await context.failpoints?.hit("before-initdb-upload");
    await archives.put(request.timelineId, archive);
    return await work(dataDirectory, datadir);
  } finally {
    await files.removeTree(directory);
  }
}
