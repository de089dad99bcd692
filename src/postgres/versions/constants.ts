/**
 * What differs between PostgreSQL major versions and fits in a number.
 *
 * Source: PostgreSQL access/xlog_internal.h (XLOG_PAGE_MAGIC), catalog/pg_control.h (PG_CONTROL_VERSION),
 * catalog/catversion.h (CATALOG_VERSION_NO), utils/cache/relmapper.c (MAX_MAPPINGS).
 */
import type { PgMajor } from "./major.ts";

export interface VersionConstants {
  readonly walPageMagic: number;
  readonly controlVersion: number;
  readonly catalogVersion: number;
  /** Size of pg_filenode.map. */
  readonly relationMapSize: number;
  /** Mappings that fit in it. */
  readonly relationMapCapacity: number;
}

export const VERSION_CONSTANTS: Readonly<Record<PgMajor, VersionConstants>> = {
  14: { walPageMagic: 0xd10d, controlVersion: 1300, catalogVersion: 202107181, relationMapSize: 512, relationMapCapacity: 62 },
  15: { walPageMagic: 0xd110, controlVersion: 1300, catalogVersion: 202209061, relationMapSize: 512, relationMapCapacity: 62 },
  16: { walPageMagic: 0xd113, controlVersion: 1300, catalogVersion: 202307071, relationMapSize: 524, relationMapCapacity: 64 },
  17: { walPageMagic: 0xd116, controlVersion: 1700, catalogVersion: 202406281, relationMapSize: 524, relationMapCapacity: 64 },
  18: { walPageMagic: 0xd118, controlVersion: 1800, catalogVersion: 202506291, relationMapSize: 524, relationMapCapacity: 64 },
};
