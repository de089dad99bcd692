/** PostgreSQL major versions this project understands. */
import { StrataError } from "../../kit/errors.ts";

export type PgMajor = 14 | 15 | 16 | 17 | 18;

export const PG_MAJORS: readonly PgMajor[] = [14, 15, 16, 17, 18];

/** @param versionNum as in `server_version_num`, e.g. 170010. @throws StrataError fix-input `unsupported-postgres-version` */
export function majorFromVersionNum(versionNum: number): PgMajor {
  const major = Math.floor(versionNum / 10000);
  for (const known of PG_MAJORS) if (known === major) return known;
  throw new StrataError("fix-input", "unsupported-postgres-version", `PostgreSQL version ${versionNum} is not supported (14 to 18 are)`);
}
