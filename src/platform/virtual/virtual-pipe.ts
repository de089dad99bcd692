/**
 * One direction of a virtual connection: what the sender has queued, what is on the way, what waits for the reader. Bytes keep
 * their order and are never lost or doubled while the connection lives, as TCP promises; when they arrive, and in what pieces, is
 * the network's whim. A reader that lags leaves the sender's bytes in the sender's queue.
 */
import type { Timer } from "../clock.ts";

export interface PipeLink {
  /** How long the next piece takes; called in sending order. */
  delayMs(): number;
  after(delayMs: number, callback: () => void): Timer;
  /** False while a partition holds back what goes this way. */
  isOpen(): boolean;
  /** Calls back once when the way may have opened. */
  onOpen(callback: () => void): void;
  /** Splits off a random first piece: how many of `length` bytes arrive together. */
  pieceBytes(length: number): number;
}

export interface PipeReceiver {
  onBytes(bytes: Uint8Array): void;
  onEnd(): void;
  onReset(): void;
}

type Parcel = Uint8Array | "end" | "reset";

const WINDOW_BYTES = 1024 * 1024;
const MIN_ROOM_BYTES = 64 * 1024;

export class VirtualPipe {
  readonly #link: PipeLink;
  readonly #receiver: PipeReceiver;
  /** Called whenever `queuedBytes` went down. */
  readonly #onRoom: () => void;
  readonly #queued: Parcel[] = [];
  /** On the way, in order; the first is due first. */
  readonly #flying: { readonly parcel: Parcel; readonly dueMs: number }[] = [];
  #queuedBytes = 0;
  #unacknowledgedBytes = 0;
  #lastDueMs = 0;
  readonly #clockMs: () => number;
  #delivering = false;
  #reset = false;

  constructor(link: PipeLink, receiver: PipeReceiver, options: { readonly nowMs: () => number; readonly onRoom: () => void }) {
    this.#link = link;
    this.#receiver = receiver;
    this.#clockMs = options.nowMs;
    this.#onRoom = options.onRoom;
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  send(bytes: Uint8Array): void {
    if (this.#reset) return;
    this.#queued.push(bytes);
    this.#queuedBytes += bytes.length;
    this.#pump();
  }

  end(): void {
    if (this.#reset) return;
    this.#queued.push("end");
    this.#pump();
  }

  /** Overtakes nothing on the way, but drops what has not been sent. */
  reset(): void {
    if (this.#reset) return;
    this.#reset = true;
    this.#queued.length = 0;
    this.#queuedBytes = 0;
    this.#launch("reset");
  }

  /** The reader has taken `lengthBytes`: there is room for as much. */
  acknowledge(lengthBytes: number): void {
    this.#unacknowledgedBytes -= lengthBytes;
    this.#pump();
  }

  /** The sender's memory and what it had on the way are gone. */
  drop(): void {
    if (this.#reset) return;
    this.#queued.length = 0;
    this.#queuedBytes = 0;
    this.#flying.length = 0;
  }

  #pump(): void {
    let moved = false;
    while (this.#queued.length > 0 && this.#unacknowledgedBytes < WINDOW_BYTES) {
      const next = this.#queued[0];
      if (typeof next === "string") {
        this.#queued.shift();
        this.#launch(next);
        continue;
      }
      const room = Math.min(next.length, WINDOW_BYTES - this.#unacknowledgedBytes);
      // No crumbs: a window that opens by little is left to open further.
      if (room < next.length && room < MIN_ROOM_BYTES) break;
      const piece = next.subarray(0, this.#link.pieceBytes(room));
      if (piece.length === next.length) this.#queued.shift();
      else this.#queued[0] = next.subarray(piece.length);
      this.#queuedBytes -= piece.length;
      this.#unacknowledgedBytes += piece.length;
      moved = true;
      // A copy: the reader owns what it gets.
      this.#launch(piece.slice());
    }
    if (moved) this.#onRoom();
  }

  #launch(parcel: Parcel): void {
    this.#lastDueMs = Math.max(this.#lastDueMs, this.#clockMs() + this.#link.delayMs());
    this.#flying.push({ parcel, dueMs: this.#lastDueMs });
    this.#deliverLater();
  }

  #deliverLater(): void {
    if (this.#delivering || this.#flying.length === 0) return;
    this.#delivering = true;
    this.#link.after(this.#flying[0].dueMs - this.#clockMs(), () => {
      this.#delivering = false;
      if (!this.#link.isOpen()) {
        this.#delivering = true;
        this.#link.onOpen(() => {
          this.#delivering = false;
          this.#deliverLater();
        });
        return;
      }
      // What arrives at one moment arrives as one.
      for (const nowMs = this.#clockMs(); this.#flying.length > 0 && this.#flying[0].dueMs <= nowMs; ) {
        const { parcel } = this.#flying[0];
        this.#flying.shift();
        this.#deliver(parcel);
      }
      this.#deliverLater();
    });
  }

  #deliver(parcel: Parcel): void {
    if (parcel === "end") this.#receiver.onEnd();
    else if (parcel === "reset") this.#receiver.onReset();
    else this.#receiver.onBytes(parcel);
  }
}
