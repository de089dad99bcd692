/**
 * The commands of the page service, as the text of simple queries:
 *
 *   pagestream_v2 TENANT TIMELINE            pagestream_v3 TENANT TIMELINE
 *   basebackup TENANT TIMELINE [LSN|latest] [--gzip] [--replica]
 *   fullbackup TENANT TIMELINE [LSN [PREV_LSN]]
 *   fullbasebackup TENANT TIMELINE [LSN|latest] [--gzip] [--replica]     for unmodified servers; ours
 *   lease lsn TENANT[-SHARD] TIMELINE LSN
 *   import basebackup TENANT TIMELINE BASE_LSN END_LSN PG_VERSION      then COPY of a tar archive
 *   import wal TENANT TIMELINE START_LSN END_LSN                       the same
 *   set …                                    ignored
 *
 * Source: the peer's pageserver page_service module.
 */
import { StrataError } from "../../kit/errors.ts";
import { parseTenantId, parseTenantShardId, parseTimelineId, type TenantId, type TenantShardId, type TimelineId } from "../../kit/ids.ts";
import { type Lsn, parseLsn } from "../../kit/lsn.ts";
import { majorFromVersionNum, type PgMajor } from "../../postgres/versions/major.ts";
import type { BaseBackupOptions } from "../basebackup/base-backup.ts";
import type { PagestreamVersion } from "../api/pagestream.ts";

export interface BackupCommand {
  readonly kind: "backup";
  readonly tenantId: TenantId;
  readonly timelineId: TimelineId;
  readonly form: BaseBackupOptions["form"];
  /** null: where the timeline ends. */
  readonly lsn: Lsn | null;
  readonly prevLsn: Lsn | null;
  readonly gzip: boolean;
  readonly replica: boolean;
}

export type PageServiceCommand =
  | { readonly kind: "pagestream"; readonly tenantId: TenantId; readonly timelineId: TimelineId; readonly version: PagestreamVersion }
  | BackupCommand
  | { readonly kind: "lease"; readonly tenantShardId: TenantShardId; readonly timelineId: TimelineId; readonly lsn: Lsn }
  | ImportCommand
  | { readonly kind: "set" };

export type ImportCommand = { readonly kind: "import"; readonly tenantId: TenantId; readonly timelineId: TimelineId } & (
  | { readonly what: "basebackup"; readonly baseLsn: Lsn; readonly endLsn: Lsn; readonly pgVersion: PgMajor }
  | { readonly what: "wal"; readonly startLsn: Lsn; readonly endLsn: Lsn }
);

/** @throws StrataError fix-input `bad-command` and from the parsers of ids and LSNs */
export function parseCommand(query: string): PageServiceCommand {
  const words = query.trim().replace(/;$/, "").split(/\s+/);
  const name = words[0].toLowerCase();
  const parameters = words.slice(1);
  switch (name) {
    case "set":
      return { kind: "set" };
    case "pagestream_v2":
    case "pagestream_v3":
      if (parameters.length !== 2) throw bad(query, "a tenant and a timeline are wanted");
      return { kind: "pagestream", ...target(parameters), version: name === "pagestream_v2" ? 2 : 3 };
    case "basebackup":
      return parseBackup(query, parameters, "neon");
    case "fullbasebackup":
      return parseBackup(query, parameters, "stock");
    case "fullbackup":
      return parseFullBackup(query, parameters);
    case "lease":
      return parseLease(query, parameters);
    case "import":
      return parseImport(query, parameters);
    default:
      throw bad(query, `unsupported command ${name}`);
  }
}

function target(parameters: readonly string[]): { tenantId: TenantId; timelineId: TimelineId } {
  return { tenantId: parseTenantId(parameters[0]), timelineId: parseTimelineId(parameters[1]) };
}

function parseBackup(query: string, parameters: readonly string[], form: BaseBackupOptions["form"]): BackupCommand {
  if (parameters.length < 2) throw bad(query, "a tenant and a timeline are wanted");
  const third = parameters[2];
  const hasLsn = third !== undefined && !third.startsWith("--");
  const flags = parameters.slice(hasLsn ? 3 : 2);
  if (new Set(flags).size !== flags.length) throw bad(query, "a flag is given twice");
  for (const flag of flags) if (flag !== "--gzip" && flag !== "--replica") throw bad(query, `unknown flag ${flag}`);
  const lsn = hasLsn && third !== "latest" ? parseLsn(third) : null;
  return { kind: "backup", ...target(parameters), form, lsn, prevLsn: null, gzip: flags.includes("--gzip"), replica: flags.includes("--replica") };
}

function parseFullBackup(query: string, parameters: readonly string[]): BackupCommand {
  if (parameters.length < 2 || parameters.length > 4) throw bad(query, "two to four parameters are wanted");
  const lsnAt = (index: number): Lsn | null => (parameters[index] === undefined ? null : parseLsn(parameters[index]));
  return { kind: "backup", ...target(parameters), form: "full", lsn: lsnAt(2), prevLsn: lsnAt(3), gzip: false, replica: false };
}

function parseLease(query: string, parameters: readonly string[]): PageServiceCommand {
  if (parameters.length !== 4 || parameters[0].toLowerCase() !== "lsn") throw bad(query, "lease lsn wants a tenant, a timeline and an LSN");
  return { kind: "lease", tenantShardId: parseTenantShardId(parameters[1]), timelineId: parseTimelineId(parameters[2]), lsn: parseLsn(parameters[3]) };
}

function parseImport(query: string, [what, ...parameters]: readonly string[]): ImportCommand {
  if (what === "basebackup" && parameters.length === 5 && /^\d{1,4}$/.test(parameters[4])) {
    return { kind: "import", ...target(parameters), what, baseLsn: parseLsn(parameters[2]), endLsn: parseLsn(parameters[3]), pgVersion: majorFromVersionNum(Number(parameters[4]) * 10_000) };
  }
  if (what === "wal" && parameters.length === 4) return { kind: "import", ...target(parameters), what, startLsn: parseLsn(parameters[2]), endLsn: parseLsn(parameters[3]) };
  throw bad(query, "import wants: basebackup TENANT TIMELINE BASE_LSN END_LSN PG_VERSION, or wal TENANT TIMELINE START_LSN END_LSN");
}

function bad(query: string, what: string): StrataError {
  return new StrataError("fix-input", "bad-command", `${what}, in "${query.slice(0, 200)}"`);
}
