/**
 * The two wire forms of the messages between a proposer and an acceptor (`proposer-messages.ts`). Each message is the payload of
 * one CopyData on a connection that said START_WAL_PUSH. Version 3 (`proposer-protocol-v3.ts`) is big-endian and carries
 * the membership generation; version 2 (`proposer-protocol-v2.ts`) is the same fields as little-endian C structs,
 * without generations: decoded, its messages have generation 0 and the empty configuration.
 *
 * Source: the peer safekeeper/src/safekeeper.rs, pgxn/neon/walproposer.[ch], docs/safekeeper-protocol.md.
 */
import { StrataError } from "../../kit/errors.ts";
import type { AcceptorMessage, AppendRequest, ProposerMessage } from "./proposer-messages.ts";
import * as v2 from "./proposer-protocol-v2.ts";
import * as v3 from "./proposer-protocol-v3.ts";

export type ProposerProtocolVersion = 2 | 3;

/** Told as a parameter of the connection, "on", by safekeepers of ours: who may have forgotten what it promised gives no vote. */
export const GUARDED_VOTES = "strata_guarded_votes";

export { MAX_APPEND_BYTES } from "./append-body.ts";

/** @throws StrataError fix-input `unsupported-protocol-version` */
export function parseProposerProtocolVersion(text: string): ProposerProtocolVersion {
  if (text === "2") return 2;
  if (text === "3") return 3;
  throw new StrataError("fix-input", "unsupported-protocol-version", `proposer protocol version "${text}" is not supported (2 and 3 are)`);
}

/**
 * The returned append's `walData` is a view of `bytes`.
 * @throws StrataError corrupt `truncated`, fix-input `bad-proposer-message`, `bad-lsn`, `bad-term-history`, `bad-configuration`
 */
export function decodeProposerMessage(bytes: Uint8Array, version: ProposerProtocolVersion): ProposerMessage {
  return version === 3 ? v3.decodeProposerMessage(bytes) : v2.decodeProposerMessage(bytes);
}

/** Of an append, header and WAL in one array. */
export function encodeProposerMessage(message: ProposerMessage, version: ProposerProtocolVersion): Uint8Array {
  return version === 3 ? v3.encodeProposerMessage(message) : v2.encodeProposerMessage(message);
}

/** The bytes that go before `walData`: lets a sender pass the WAL itself on without a copy. */
export function encodeAppendHeader(request: AppendRequest, version: ProposerProtocolVersion): Uint8Array {
  return version === 3 ? v3.encodeAppendHeader(request) : v2.encodeAppendHeader(request);
}

/** @throws StrataError corrupt `truncated`, fix-input `bad-acceptor-message`, `bad-lsn`, … */
export function decodeAcceptorMessage(bytes: Uint8Array, version: ProposerProtocolVersion): AcceptorMessage {
  return version === 3 ? v3.decodeAcceptorMessage(bytes) : v2.decodeAcceptorMessage(bytes);
}

export function encodeAcceptorMessage(message: AcceptorMessage, version: ProposerProtocolVersion): Uint8Array {
  return version === 3 ? v3.encodeAcceptorMessage(message) : v2.encodeAcceptorMessage(message);
}
