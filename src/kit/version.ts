/** What this program is. The build puts both values in; a run from source says so. */
declare const STRATA_BUILD_VERSION: string | undefined;
declare const STRATA_BUILD_REVISION: string | undefined;

/** Of package.json. */
export const VERSION: string = typeof STRATA_BUILD_VERSION === "string" ? STRATA_BUILD_VERSION : "0.0.0-source";

/** Commit the program was built from, with `-modified` when the tree had changes. */
export const REVISION: string = typeof STRATA_BUILD_REVISION === "string" ? STRATA_BUILD_REVISION : "source";

/** One line: `strata 0.1.0 git:0123…`. */
export function versionLine(program = "strata"): string {
  return `${program} ${VERSION} git:${REVISION}`;
}
