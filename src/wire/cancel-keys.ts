/**
 * Who may cancel what: the process id and secret that each session was told (BackendKeyData). A CancelRequest comes on a connection
 * of its own and is never answered, so that it tells nothing to whoever guesses. One for each listener.
 *
 * Source: PostgreSQL src/backend/storage/ipc/procsignal.c (SendCancelRequest); manual, "Canceling Requests in Progress".
 */
import type { Random } from "../platform/random.ts";

export interface BackendKey {
  readonly processId: number;
  readonly secret: number;
}

interface Entry {
  readonly secret: number;
  readonly cancel: () => void;
}

const PROCESS_ID_LIMIT = 0x7fff_ffff;
const SECRET_LIMIT = 0x1_0000_0000;

export class CancelKeys {
  readonly #entries = new Map<number, Entry>();

  /** @param cancel ends the query that runs at that moment, if one does. Call `forget` when the session ends. */
  issue(random: Random, cancel: () => void): BackendKey {
    let processId = 1 + random.below(PROCESS_ID_LIMIT);
    while (this.#entries.has(processId)) processId = (processId % PROCESS_ID_LIMIT) + 1;
    const secret = random.below(SECRET_LIMIT);
    this.#entries.set(processId, { secret, cancel });
    return { processId, secret };
  }

  forget(key: BackendKey): void {
    this.#entries.delete(key.processId);
  }

  /** False for a key that is nobody's. */
  cancel(key: BackendKey): boolean {
    const entry = this.#entries.get(key.processId);
    if (entry === undefined || entry.secret !== key.secret) return false;
    entry.cancel();
    return true;
  }
}
