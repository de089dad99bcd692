/**
 * Terms and the history of term switches: entry (t, l) says that WAL from l on, up to the next entry, was written
 * by the proposer that won term t. Both sides of the consensus reason with these.
 *
 * Source: the peer safekeeper/src/safekeeper.rs (TermHistory), docs/safekeeper-protocol.md; the comparison of logs by
 * (last term, end) is Raft's (Ongaro, Ousterhout, "In Search of an Understandable Consensus Algorithm", 5.4.1).
 */
import { type ByteReader, type ByteWriter } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import { type Lsn, lsnToString } from "../../kit/lsn.ts";
import { readU64be, readU64le } from "./u64.ts";

/** Number of an election; 0 = never voted. */
export type Term = number;

export interface TermLsn {
  readonly term: Term;
  readonly lsn: Lsn;
}

/** Ascending in term, non-descending in LSN. */
export type TermHistory = readonly TermLsn[];

const ENTRY_BYTES = 16;

/** The switches at or below `lsn`: the part of the history that WAL ending there really contains. */
export function historyUpTo(history: TermHistory, lsn: Lsn): TermHistory {
  const end = history.findIndex((entry) => entry.lsn > lsn);
  return end < 0 ? history : history.slice(0, end);
}

/** Term of the last WAL byte of a log that ends at `flushLsn`; 0 when it has none. */
export function lastLogTerm(history: TermHistory, flushLsn: Lsn): Term {
  return historyUpTo(history, flushLsn).at(-1)?.term ?? 0;
}

/**
 * Where the acceptor's log, ending at `acceptorEnd`, leaves the proposer's, which has no end: the end of the last
 * term they share, on whichever side it ends first. Null when they share no term.
 * @throws StrataError conflict `term-history-mismatch` when one term starts at two places: the logs cannot both be real
 */
export function highestCommonPoint(proposer: TermHistory, acceptor: TermHistory, acceptorEnd: Lsn): TermLsn | null {
  let common = -1;
  for (let i = 0; i < Math.min(proposer.length, acceptor.length); i++) {
    if (proposer[i].term !== acceptor[i].term) break;
    if (proposer[i].lsn !== acceptor[i].lsn) {
      const starts = `${lsnToString(proposer[i].lsn)} at the proposer, ${lsnToString(acceptor[i].lsn)} here`;
      throw new StrataError("conflict", "term-history-mismatch", `term ${proposer[i].term} starts at ${starts}`);
    }
    common = i;
  }
  if (common < 0) return null;
  const { term } = proposer[common];
  const acceptorTermEnd = common + 1 < acceptor.length ? acceptor[common + 1].lsn : acceptorEnd;
  const proposerTermEnd = common + 1 < proposer.length ? proposer[common + 1].lsn : Number.POSITIVE_INFINITY;
  // In the proposer's last term nothing of the acceptor's can differ: take all of it.
  return { term, lsn: common === proposer.length - 1 ? acceptorEnd : Math.min(acceptorTermEnd, proposerTermEnd) };
}

/** @throws StrataError fix-input `bad-term-history` when terms or LSNs go backwards */
export function checkTermHistory(history: TermHistory): TermHistory {
  for (let i = 1; i < history.length; i++) {
    if (history[i].term <= history[i - 1].term || history[i].lsn < history[i - 1].lsn) {
      throw new StrataError("fix-input", "bad-term-history", `term history goes backwards at entry ${i}: ${termHistoryToString(history)}`);
    }
  }
  return history;
}

const PRINTED_ENTRIES = 20;

/** Newest first, the latest 20. */
export function termHistoryToString(history: TermHistory): string {
  const shown = history.slice(-PRINTED_ENTRIES).reverse().map((entry) => `(${entry.term}, ${lsnToString(entry.lsn)})`);
  return `[${shown.join(", ")}${history.length > PRINTED_ENTRIES ? ", …" : ""}]`;
}

/** u32 count, then (u64 term, u64 LSN) each, big-endian: protocol v3. */
export function decodeTermHistoryBe(reader: ByteReader): TermHistory {
  const history: TermLsn[] = [];
  for (let left = checkCount(reader, reader.u32be()); left > 0; left--) history.push({ term: readU64be(reader, "term"), lsn: reader.lsnBe() });
  return checkTermHistory(history);
}

/** The same, little-endian: protocol v2. */
export function decodeTermHistoryLe(reader: ByteReader): TermHistory {
  const history: TermLsn[] = [];
  for (let left = checkCount(reader, reader.u32le()); left > 0; left--) history.push({ term: readU64le(reader, "term"), lsn: reader.lsnLe() });
  return checkTermHistory(history);
}

function checkCount(reader: ByteReader, count: number): number {
  if (count * ENTRY_BYTES > reader.remaining) {
    throw new StrataError("corrupt", "truncated", `term history: ${count} entries announced, ${reader.remaining} bytes left`);
  }
  return count;
}

export function encodeTermHistoryBe(writer: ByteWriter, history: TermHistory): void {
  writer.u32be(history.length);
  for (const entry of history) writer.u64be(BigInt(entry.term)).lsnBe(entry.lsn);
}

export function encodeTermHistoryLe(writer: ByteWriter, history: TermHistory): void {
  writer.u32le(history.length);
  for (const entry of history) writer.u64le(BigInt(entry.term)).lsnLe(entry.lsn);
}
