/**
 * Clusters from elsewhere: a base backup as a tar archive becomes a timeline, and WAL segments in another bring it up to date. The
 * archive is unpacked first: its files come in any order, and what is damaged must not end up in a timeline.
 *
 * Source: the peer's pageserver import_datadir module.
 */
import { StrataError } from "../../kit/errors.ts";
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import type { Platform } from "../../platform/platform.ts";
import type { PgMajor } from "../../postgres/versions/major.ts";
import { DatadirModification } from "../datadir/datadir-modification.ts";
import type { Tenants } from "../tenant/tenants.ts";
import { importBaseBackup } from "./import-datadir.ts";
import { withImportDirectory } from "./import-directory.ts";
import { importWal } from "./import-wal.ts";
import { unpackTar } from "./unpack-tar.ts";

export interface ImportTarget {
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
}

export interface ImportOptions {
  readonly tenants: Tenants;
  readonly platform: Platform;
  readonly workDirectory: string;
  /** On the working directory's disk. */
  readonly freeBytes: () => number;
}

const FILES_MAX = 1_000_000;

export class Imports {
  readonly #options: ImportOptions;

  constructor(options: ImportOptions) {
    this.#options = options;
  }

  /**
   * A root timeline whose first content is the backup, at `baseLsn`; in object storage when this returns. Where its WAL ends,
   * `endLsn`, matters to whoever imports that next: as at the peer it is looked at, and the timeline is readable without it.
   * @throws StrataError conflict `timeline-exists`; fix-input `bad-range`, `bad-archive`, `unsupported-archive`, `wrong-version`
   */
  async baseBackup(target: ImportTarget, at: { readonly baseLsn: Lsn; readonly endLsn: Lsn; readonly pgVersion: PgMajor }, archive: AsyncIterable<Uint8Array>): Promise<void> {
    checkRange(at.baseLsn, at.endLsn);
    const tenant = this.#tenant(target.tenantId);
    await tenant.load();
    await this.#unpacked(archive, async (directory) => {
      const { files } = this.#options.platform;
      await tenant.importTimeline(target.timelineId, { initdbLsn: at.baseLsn, pgVersion: at.pgVersion }, (datadir) =>
        importBaseBackup(new DatadirModification(datadir), { files, directory }, { lsn: at.baseLsn, version: at.pgVersion }),
      );
    });
  }

  /** @throws StrataError conflict `wrong-start-lsn`, `import-running`; fix-input `bad-range`, `bad-archive`, `wal-missing`; corrupt */
  async wal(target: ImportTarget, range: { readonly startLsn: Lsn; readonly endLsn: Lsn }, archive: AsyncIterable<Uint8Array>): Promise<void> {
    checkRange(range.startLsn, range.endLsn);
    const tenant = this.#tenant(target.tenantId);
    const { timeline } = await tenant.timeline(target.timelineId);
    const assertStart = (): void => {
      if (timeline.lastRecordLsn === range.startLsn) return;
      throw new StrataError("conflict", "wrong-start-lsn", `cannot import WAL from ${lsnToString(range.startLsn)}: the timeline ends at ${lsnToString(timeline.lastRecordLsn)}`);
    };
    assertStart();
    const { files, clock } = this.#options.platform;
    await this.#unpacked(archive, (directory) => tenant.withoutReceiving(target.timelineId, (datadir) => {
      // What was received while the archive was unpacked counts.
      assertStart();
      return importWal(datadir, { files, directory, clock }, range.endLsn);
    }));
    await timeline.freezeAndFlush();
    await timeline.waitUploaded();
  }

  #tenant(tenantId: TenantId) {
    return this.#options.tenants.attached({ tenantId, number: 0, count: 0 });
  }

  async #unpacked(archive: AsyncIterable<Uint8Array>, work: (directory: string) => Promise<void>): Promise<void> {
    const { platform, workDirectory, freeBytes } = this.#options;
    // The disk is the others' as well: never more than half of what is free.
    const limits = { maxFiles: FILES_MAX, maxBytes: Math.floor(freeBytes() / 2) };
    await withImportDirectory(platform, workDirectory, async (directory) => {
      await unpackTar(platform.files, archive, { directory, limits });
      await work(directory);
    });
  }
}

function checkRange(fromLsn: Lsn, toLsn: Lsn): void {
  if (fromLsn % 8 !== 0) throw new StrataError("fix-input", "bad-range", `no record begins or ends at ${lsnToString(fromLsn)}`);
  if (toLsn < fromLsn) throw new StrataError("fix-input", "bad-range", `${lsnToString(toLsn)} is before ${lsnToString(fromLsn)}`);
}
