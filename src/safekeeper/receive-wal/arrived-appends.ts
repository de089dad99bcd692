/**
 * Small appends that have arrived together, taken in as one: their WAL is moved together where it lies, in the bytes that came over
 * the connection, without an array, a request or a turn of the queue for each.
 */
import type { ServedCopyStream } from "../../wire/pg-session.ts";
import type { AppendRequest } from "../api/proposer-messages.ts";
import { APPEND_HEADER_BYTES, type AppendHeader, readAppendHeader } from "../api/proposer-protocol-v3.ts";

/** Appends smaller than this are joined to one where they continue each other; a larger one is worth a turn of its own, unmoved. */
export const JOIN_BELOW_BYTES = 64 * 1024;

export interface JoinedAppends {
  readonly request: AppendRequest;
  /** How many it is made of. */
  readonly count: number;
  /** Of the messages that were taken from the stream for it. */
  readonly addedBytes: number;
}

/**
 * Joins to `first` what has arrived behind it in the same piece, as long as each message is an append with WAL that continues the one before
 * in the same term and generation: what the acceptor checks of each holds for all of them or for none, and the last one's positions are
 * the proposer's newest. Whatever else comes is left to be read as ever.
 * @param first of protocol version 3, taken from `copy` just now: its WAL lies in what was received, before all that `copy` still has
 */
export function joinArrived(copy: Pick<ServedCopyStream, "peek" | "skip">, first: AppendRequest): JoinedAppends {
  const { walData } = first;
  const alone = { request: first, count: 1, addedBytes: 0 };
  if (walData.length === 0 || walData.length >= JOIN_BELOW_BYTES || copy.peek() === null) return alone;
  let walBytes = walData.length;
  let count = 1;
  let addedBytes = 0;
  let last: AppendHeader = first;
  // Two, filled in turn: one holds the last that was taken.
  const headers = [newHeader(), newHeader()] as const;
  for (let span = copy.peek(); span !== null; span = copy.peek()) {
    const { bytes, start, end } = span;
    const next = headers[count % 2];
    if (!readAppendHeader(span, next) || !continues(last, next)) break;
    const from = start + APPEND_HEADER_BYTES;
    const to = walData.byteOffset + walBytes - bytes.byteOffset;
    if (bytes.buffer !== walData.buffer || to < 0 || to > from) break;
    bytes.copyWithin(to, from, end);
    walBytes += end - from;
    addedBytes += end - start;
    count++;
    last = next;
    copy.skip();
  }
  if (count === 1) return alone;
  const { endLsn, commitLsn, truncateLsn } = last;
  return { request: { ...first, endLsn, commitLsn, truncateLsn, walData: new Uint8Array(walData.buffer, walData.byteOffset, walBytes) }, count, addedBytes };
}

function continues(last: AppendHeader, next: AppendHeader): boolean {
  const sizeBytes = next.endLsn - next.beginLsn;
  return sizeBytes > 0 && sizeBytes < JOIN_BELOW_BYTES && next.beginLsn === last.endLsn && next.term === last.term && next.generation === last.generation;
}

function newHeader(): AppendHeader {
  return { generation: 0, term: 0, beginLsn: 0, endLsn: 0, commitLsn: 0, truncateLsn: 0 };
}
