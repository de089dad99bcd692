/** Configuration of a replica's PostgreSQL. */
import type { ControlFile } from "../../postgres/control-file/control-file.ts";

/** What `-c` forces. */
export function forcedReplicaSettings(): Record<string, string> {
  return {
    // The directory may vanish at any moment: the next start begins with a new base backup.
    fsync: "off",
    restart_after_crash: "off",
    hot_standby: "on",
    archive_mode: "off",
    synchronous_standby_names: "",
    wal_init_zero: "off",
  };
}

/**
 * postgresql.conf without primary_conninfo. A standby refuses to open with less room than its primary has for connections,
 * prepared transactions and locks.
 */
export function replicaSettings(user: Readonly<Record<string, string>>, control: ControlFile): Record<string, string> {
  const atLeast = (name: string, minimum: number): Record<string, string> => {
    const value = Number(user[name] ?? minimum);
    return { [name]: String(Number.isInteger(value) ? Math.max(value, minimum) : minimum) };
  };
  return {
    wal_retrieve_retry_interval: "500ms",
    wal_receiver_timeout: "10s",
    ...user,
    ...atLeast("max_connections", control.maxConnections),
    ...atLeast("max_worker_processes", control.maxWorkerProcesses),
    ...atLeast("max_wal_senders", control.maxWalSenders),
    ...atLeast("max_prepared_transactions", control.maxPreparedXacts),
    ...atLeast("max_locks_per_transaction", control.maxLocksPerXact),
  };
}
