/**
 * Configuration of a compute's PostgreSQL.
 *
 * Two kinds. Forced settings stand on the command line, where neither ALTER SYSTEM nor postgresql.conf can undo them: the
 * promise that an acknowledged commit is on a quorum depends on them. All others are the user's.
 */
import { StrataError } from "../../kit/errors.ts";
import type { FileSystem } from "../../platform/files.ts";
import { utf8 } from "../../kit/bytes.ts";
import { QUOTA_FILE } from "./size-quota.ts";
import { PROPOSER_APPLICATION_NAME } from "../proposer/local-wal-stream.ts";

export interface SettingsOptions {
  readonly user: Readonly<Record<string, string>>;
}

/** How much WAL an absent safekeeper may keep from being removed; afterwards it gets it from the others. */
const MAX_KEPT_WAL_MIB = 2048;

/** What `-c` forces. */
export function forcedSettings(options: Partial<SettingsOptions> = {}): Record<string, string> {
  const user = options.user ?? {};
  return {
    // The directory may vanish at any moment; only the quorum counts.
    fsync: "off",
    full_page_writes: "off",
    synchronous_standby_names: PROPOSER_APPLICATION_NAME,
    wal_level: user.wal_level === "logical" ? "logical" : "replica",
    // After a crash the server would replay WAL that the quorum may not have; a new base backup is the only way back.
    restart_after_crash: "off",
    max_slot_wal_keep_size: keptWal(user.max_slot_wal_keep_size),
    max_wal_senders: atLeast(user.max_wal_senders, 10),
    max_replication_slots: atLeast(user.max_replication_slots, 10),
    wal_init_zero: "off",
    archive_mode: "off",
    // The quorum is the only standby there is to wait for; recovery never happens here.
    hot_standby: "on",
  };
}

/** What the user wants, in whole megabytes or gigabytes, but never without a bound. */
function keptWal(value: string | undefined): string {
  const match = /^(\d{1,6})\s*(MB|GB)?$/.exec(value ?? "");
  const mib = match === null ? MAX_KEPT_WAL_MIB : Number(match[1]) * (match[2] === "GB" ? 1024 : 1);
  return `${mib}MB`;
}

function atLeast(value: string | undefined, minimum: number): string {
  const number = Number(value ?? minimum);
  return String(Number.isInteger(number) ? Math.max(number, minimum) : minimum);
}

/**
 * postgresql.conf, pg_hba.conf and pg_ident.conf: trust for the socket and for loopback, passwords for everyone else.
 * @throws StrataError fix-input `bad-setting`
 */
export async function writeConfiguration(files: FileSystem, directory: string, user: Readonly<Record<string, string>>): Promise<void> {
  const lines = Object.entries(user).map(([name, value]) => {
    if (!/^[a-zA-Z_][a-zA-Z0-9_.]*$/.test(name) || /[\n\r\0]/.test(value)) {
      throw new StrataError("fix-input", "bad-setting", `"${name}" cannot be written into postgresql.conf`);
    }
    return `${name} = '${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;
  });
  const access = ["local all all trust", "local replication all trust"];
  for (const loopback of ["127.0.0.1/32", "::1/128"]) access.push(`host all all ${loopback} trust`, `host replication all ${loopback} trust`);
  access.push("host all all all scram-sha-256");
  await writeText(files, `${directory}/postgresql.conf`, [...lines, `include = '${QUOTA_FILE}'`]);
  await writeText(files, `${directory}/${QUOTA_FILE}`, []);
  await writeText(files, `${directory}/pg_hba.conf`, access);
  await writeText(files, `${directory}/pg_ident.conf`, []);
  await writeText(files, `${directory}/postgresql.auto.conf`, []);
}

async function writeText(files: FileSystem, path: string, lines: readonly string[]): Promise<void> {
  const file = await files.open(path, "truncate");
  await file.write(utf8(lines.map((line) => `${line}\n`).join("")), 0);
  await file.close();
}
