/** The page service: the libpq side of a pageserver. One handler serves all sessions; a session holds no state here. */
import { StrataError } from "../../kit/errors.ts";
import type { Failpoints } from "../../kit/failpoints.ts";
import type { TenantId, TimelineId } from "../../kit/ids.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { checkPermission, type Claims, type JwtAuth } from "../../http/auth.ts";
import type { Logger } from "../../observability/log.ts";
import type { Clock } from "../../platform/clock.ts";
import type { CopyStream, PgHandler, PgSession } from "../../wire/pg-session.ts";
import { baseBackup } from "../basebackup/base-backup.ts";
import { GZIP_FAST, GZIP_SMALL, gzipped } from "../basebackup/gzip.ts";
import type { Imports } from "../import/imports.ts";
import { type BackupCommand, type ImportCommand, parseCommand } from "./commands.ts";
import { increment, type StorageCounts } from "../counts/storage-counts.ts";
import { checkNotCollected } from "./effective-lsn.ts";
import { servePagestream } from "./pagestream.ts";
import type { ServedTimeline, TimelineFinder } from "./served-timeline.ts";

const COPY_PIECE_BYTES = 128 * 1024;
const PERMISSION = { kind: "scope", scopes: ["tenant", "pageserverapi"] } as const;

export interface PageServiceOptions {
  readonly finder: TimelineFinder;
  readonly clock: Clock;
  readonly log: Logger;
  /** null: everybody may do everything. */
  readonly auth: JwtAuth | null;
  readonly counts: StorageCounts;
  readonly imports?: Imports;
  /** Only in testing mode. */
  readonly failpoints?: Failpoints | undefined;
}

export class PageService implements PgHandler {
  readonly #options: PageServiceOptions;
  readonly #claims = new WeakMap<PgSession, Claims>();

  constructor(options: PageServiceOptions) {
    this.#options = options;
  }

  async connected(session: PgSession): Promise<void> {
    const { auth } = this.#options;
    // Who is refused here disconnects as well.
    this.#options.counts.connections.started++;
    if (auth !== null) this.#claims.set(session, auth.verify(session.password ?? ""));
  }

  disconnected(): void {
    this.#options.counts.connections.finished++;
  }

  async query(session: PgSession, sql: string): Promise<void> {
    const command = parseCommand(sql);
    await this.#options.failpoints?.hit("ps::connection-start::process-query", session.signal);
    const { commands } = this.#options.counts.connections;
    switch (command.kind) {
      case "set":
        session.sendCommandComplete("SET");
        return;
      case "pagestream":
        this.#permit(session, command);
        increment(commands, command.version === 2 ? "PageStreamV2" : "PageStreamV3");
        return this.#pagestream(session, command);
      case "backup":
        this.#permit(session, command);
        increment(commands, command.form === "neon" ? "Basebackup" : "Fullbackup");
        return this.#timedBackup(session, command);
      case "import":
        this.#permit(session, command);
        return this.#import(session, command);
      case "lease":
        this.#permit(session, { tenantId: command.tenantShardId.tenantId, timelineId: command.timelineId });
        increment(commands, "LeaseLsn");
        return this.#lease(session, command);
    }
  }

  /** @throws StrataError forbidden `permission-denied` */
  #permit(session: PgSession, target: { tenantId: TenantId; timelineId: TimelineId }): void {
    const { auth } = this.#options;
    if (auth === null) return;
    const claims = this.#claims.get(session);
    if (claims === undefined) throw new StrataError("forbidden", "permission-denied", "the session has no token");
    checkPermission(claims, PERMISSION, target);
  }

  async #pagestream(session: PgSession, command: { tenantId: TenantId; timelineId: TimelineId; version: 2 | 3 }): Promise<void> {
    const { finder, counts, clock } = this.#options;
    const log = this.#options.log.child({ tenantId: command.tenantId, timelineId: command.timelineId });
    await servePagestream(session.copyBoth(), command, { finder, signal: session.signal, log, counts, clock });
  }

  async #timedBackup(session: PgSession, command: BackupCommand): Promise<void> {
    const { clock, counts: { connections: { backups } } } = this.#options;
    const startMs = clock.monotonicMs();
    try {
      await this.#backup(session, command);
      backups.of("ok").recordMs(clock.monotonicMs() - startMs);
    } catch (error) {
      backups.of(session.signal.aborted ? "client_error" : "error").recordMs(clock.monotonicMs() - startMs);
      throw error;
    }
  }

  async #backup(session: PgSession, command: BackupCommand): Promise<void> {
    const { finder, clock, failpoints } = this.#options;
    const timeline = await finder.find(command, { kind: "zero" });
    const lsn = await this.#backupLsn(timeline, command, session.signal);
    const { store } = timeline.datadir;
    const known = lsn === store.lastRecordLsn ? store.prevRecordLsn : 0;
    const pieces = baseBackup(timeline.datadir.at(lsn, { task: "basebackup", signal: session.signal }), {
      form: command.form,
      replica: command.replica,
      lazySlrus: timeline.lazySlruDownload,
      prevLsn: this.#prevLsn(command, known),
      isBranchPoint: store.ancestor?.lsn === lsn,
      wallMs: clock.wallMs(),
      beforeControlFile: failpoints === undefined ? undefined : () => failpoints.hit("basebackup-before-control-file", session.signal),
    });
    const copy = session.copyOut();
    for await (const piece of command.gzip ? gzipped(pieces, command.form === "neon" ? GZIP_SMALL : GZIP_FAST) : pieces) await sendPiece(copy, piece);
    copy.done();
    session.sendCommandComplete("SELECT 1");
  }

  async #backupLsn(timeline: ServedTimeline, command: BackupCommand, signal: AbortSignal): Promise<Lsn> {
    if (command.lsn === null) return timeline.datadir.store.lastRecordLsn;
    await timeline.datadir.store.waitLsn(command.lsn, { signal, who: "base backup" });
    checkNotCollected(timeline, command.lsn);
    return command.lsn;
  }

  #prevLsn(command: BackupCommand, known: Lsn): Lsn {
    if (command.prevLsn === null) return known;
    if (known !== 0 && known !== command.prevLsn) {
      throw new StrataError("fix-input", "wrong-prev-lsn", `the record before starts at ${lsnToString(known)}, not at ${lsnToString(command.prevLsn)}`);
    }
    return command.prevLsn;
  }

  /** The archive is what the client copies in. */
  async #import(session: PgSession, command: ImportCommand): Promise<void> {
    const { imports } = this.#options;
    if (imports === undefined) throw new StrataError("fix-input", "bad-command", "nothing can be imported here");
    const archive = copied(session.copyIn());
    if (command.what === "basebackup") await imports.baseBackup(command, command, archive);
    else await imports.wal(command, command, archive);
    session.sendCommandComplete("SELECT 1");
  }

  async #lease(session: PgSession, command: { tenantShardId: { tenantId: TenantId; number: number; count: number }; timelineId: TimelineId; lsn: Lsn }): Promise<void> {
    const { tenantShardId, timelineId, lsn } = command;
    const timeline = await this.#options.finder.find({ tenantId: tenantShardId.tenantId, timelineId }, { kind: "known", shard: tenantShardId });
    let until: string | null = null;
    try {
      until = String(timeline.grantLease(lsn));
    } catch (error) {
      // The client is told NULL: the LSN cannot be leased any more.
      this.#options.log.warn("LSN lease refused", { timelineId, lsn: lsnToString(lsn), error });
    }
    session.sendResult([{ name: "valid_until" }], [[until]], "SELECT 1");
  }
}

async function* copied(copy: CopyStream): AsyncGenerator<Uint8Array> {
  for (let piece = await copy.read(); piece !== null; piece = await copy.read()) yield piece;
}

async function sendPiece(copy: CopyStream, piece: Uint8Array): Promise<void> {
  for (let at = 0; at < piece.length; at += COPY_PIECE_BYTES) {
    copy.write(piece.subarray(at, at + COPY_PIECE_BYTES));
    await copy.drained();
  }
}
