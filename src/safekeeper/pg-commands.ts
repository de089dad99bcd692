/**
 * The commands a safekeeper understands over libpq.
 *
 *     START_WAL_PUSH [(proto_version '3', allow_timeline_creation 'true')]
 *     START_REPLICATION [SLOT name] [PHYSICAL] X/X [TIMELINE n] [(term='n')]
 *     IDENTIFY_SYSTEM
 *     TIMELINE_STATUS
 *     SHOW name, SET …, SELECT pg_catalog.set_config(…): what stock clients ask before they start
 *
 * Source: the peer safekeeper/src/handler.rs (parse_cmd); PostgreSQL src/backend/replication/repl_gram.y,
 * src/bin/pg_basebackup/streamutil.c.
 */
import { StrataError } from "../kit/errors.ts";
import { type Lsn, parseLsn } from "../kit/lsn.ts";
import { parseProposerProtocolVersion, type ProposerProtocolVersion } from "./api/proposer-protocol.ts";
import type { Term } from "./api/term-history.ts";

export type PgCommand =
  | { readonly kind: "start-wal-push"; readonly protocolVersion: ProposerProtocolVersion; readonly allowTimelineCreation: boolean }
  | { readonly kind: "start-replication"; readonly startLsn: Lsn; readonly term: Term | null }
  | { readonly kind: "identify-system" }
  | { readonly kind: "timeline-status" }
  | { readonly kind: "show"; readonly name: string }
  | { readonly kind: "setting" };

/** @throws StrataError fix-input `syntax-error`, `unsupported-protocol-version`, `bad-lsn` */
export function parseCommand(sql: string): PgCommand {
  const text = sql.trim().replace(/;$/, "").trim();
  const word = /^[A-Za-z_]+/.exec(text)?.[0].toUpperCase() ?? "";
  switch (word) {
    case "START_WAL_PUSH":
      return parseStartWalPush(text);
    case "START_REPLICATION":
      return parseStartReplication(text);
    case "IDENTIFY_SYSTEM":
      return { kind: "identify-system" };
    case "TIMELINE_STATUS":
      return { kind: "timeline-status" };
    case "SHOW":
      return { kind: "show", name: text.slice(word.length).trim().toLowerCase() };
    case "SET":
      return { kind: "setting" };
    case "SELECT":
      if (/^select\s+pg_catalog\.set_config\(/i.test(text)) return { kind: "setting" };
      break;
  }
  throw syntaxError(sql);
}

function parseStartWalPush(text: string): PgCommand {
  const match = /^START_WAL_PUSH\s*(?:\(([^()]*)\))?$/i.exec(text);
  if (match === null) throw syntaxError(text);
  let protocolVersion: ProposerProtocolVersion = 2;
  let allowTimelineCreation = true;
  for (const option of (match[1] ?? "").split(",").filter((part) => part.trim() !== "")) {
    const pair = /^\s*(\w+)\s*=?\s*'?([^'\s]+)'?\s*$/.exec(option);
    if (pair === null) throw syntaxError(text);
    if (pair[1] === "proto_version") protocolVersion = parseProposerProtocolVersion(pair[2]);
    if (pair[1] === "allow_timeline_creation") allowTimelineCreation = parseBoolean(pair[2], text);
  }
  return { kind: "start-wal-push", protocolVersion, allowTimelineCreation };
}

function parseBoolean(value: string, text: string): boolean {
  if (value !== "true" && value !== "false") throw syntaxError(text);
  return value === "true";
}

const START_REPLICATION = /^START_REPLICATION(?:\s+SLOT\s+(?:"[^"]*"|\S+))?(?:\s+PHYSICAL)?\s+([0-9a-fA-F]+\/[0-9a-fA-F]+)(?:\s+TIMELINE\s+(\d+))?(?:\s*\(\s*term\s*=?\s*'(\d{1,15})'\s*\))?$/i;

function parseStartReplication(text: string): PgCommand {
  const match = START_REPLICATION.exec(text);
  if (match === null) throw syntaxError(text);
  if (match[2] !== undefined && Number(match[2]) !== 1) {
    throw new StrataError("not-found", "no-such-postgres-timeline", `requested PostgreSQL timeline ${match[2]}: there is only 1`);
  }
  return { kind: "start-replication", startLsn: parseLsn(match[1]), term: match[3] === undefined ? null : Number(match[3]) };
}

function syntaxError(sql: string): StrataError {
  return new StrataError("fix-input", "syntax-error", `unsupported command: ${sql.slice(0, 200)}`);
}
