import { expect, test } from "bun:test";
import fc from "fast-check";
import { concatBytes } from "../../../src/kit/bytes.ts";
import type { AppendRequest, ProposerMessage } from "../../../src/safekeeper/api/proposer-messages.ts";
import { APPEND_HEADER_BYTES, decodeProposerMessage, encodeProposerMessage } from "../../../src/safekeeper/api/proposer-protocol-v3.ts";
import { JOIN_BELOW_BYTES, joinArrived } from "../../../src/safekeeper/receive-wal/arrived-appends.ts";
import { PgFramer } from "../../../src/wire/framer.ts";
import { TAG } from "../../../src/wire/protocol.ts";

const START = 0x1_0000_0F00;
const COPY_DATA_HEADER_BYTES = 5;

function copyData(payload: Uint8Array): Uint8Array {
  const header = Buffer.alloc(COPY_DATA_HEADER_BYTES);
  header[0] = TAG.copyData;
  header.writeUInt32BE(payload.length + 4, 1);
  return concatBytes([header, payload]);
}

/** Bytes that tell where they belong. */
function walAt(lsn: number, sizeBytes: number): Uint8Array {
  return Uint8Array.from({ length: sizeBytes }, (_, at) => ((lsn + at) * 31) & 0xff);
}

function append(beginLsn: number, sizeBytes: number, over: Partial<AppendRequest> = {}): AppendRequest {
  return { kind: "append", generation: 3, term: 2 ** 33 + 1, beginLsn, endLsn: beginLsn + sizeBytes, commitLsn: beginLsn - 7, truncateLsn: 5, walData: walAt(beginLsn, sizeBytes), ...over };
}

/** What a connection makes of the messages when they come in pieces of these sizes; counts are checked on the way. */
function received(messages: readonly ProposerMessage[], piecesBytes: readonly number[]): ProposerMessage[] {
  const stream = concatBytes(messages.map((message) => copyData(encodeProposerMessage(message))));
  const framer = new PgFramer({ tagged: true, maxBytes: 1024 * 1024 });
  const out: ProposerMessage[] = [];
  let taken = 0;
  for (let at = 0, piece = 0; at < stream.length; piece++) {
    const end = Math.min(stream.length, at + piecesBytes[piece % piecesBytes.length]);
    framer.push(stream.slice(at, end));
    at = end;
    for (let frame = framer.take(); frame !== null; frame = framer.take()) {
      const message = decodeProposerMessage(frame.body);
      const joined = message.kind === "append" ? joinArrived(framer, message) : { request: message, count: 1, addedBytes: 0 };
      const own = messages.slice(taken, taken + joined.count).map((one) => encodeProposerMessage(one).length);
      expect(joined.addedBytes).toBe(own.slice(1).reduce((sum, bytes) => sum + bytes, 0));
      taken += joined.count;
      out.push(joined.request);
    }
  }
  expect(taken).toBe(messages.length);
  return out;
}

test("appends that continue each other become one, with the last one's positions", () => {
  const messages = [append(START, 100), append(START + 100, 1), append(START + 101, 5000, { commitLsn: START + 50, truncateLsn: 9 })];
  expect(received(messages, [1024 * 1024])).toEqual([append(START, 5101, { commitLsn: START + 50, truncateLsn: 9 })]);
});

test("nothing else is joined: another term or generation, a gap, a repetition, no WAL, a large one, another message", () => {
  const others: ProposerMessage[] = [
    append(START + 100, 50, { term: 7 }), append(START + 100, 50, { generation: 4 }), append(START + 101, 50), append(START, 100), append(START + 100, 0),
    append(START + 100, JOIN_BELOW_BYTES), append(START + 100, 50, { commitLsn: Number.MAX_SAFE_INTEGER }), { kind: "vote-request", generation: 3, term: 4 },
  ];
  for (const other of others) expect(received([append(START, 100), other], [1024 * 1024])).toEqual([append(START, 100), other]);
  for (const first of [append(START, 0), append(START, JOIN_BELOW_BYTES)]) {
    const next = append(first.endLsn, 10);
    expect(received([first, next], [1024 * 1024])).toEqual([first, next]);
  }
});

test("one that says another length than it has is left to be refused", () => {
  const bad = encodeProposerMessage(append(START + 100, 50)).subarray(0, APPEND_HEADER_BYTES + 49);
  const framer = new PgFramer({ tagged: true, maxBytes: 1024 * 1024 });
  framer.push(concatBytes([copyData(encodeProposerMessage(append(START, 100))), copyData(bad)]));
  const first = decodeProposerMessage(framer.take()?.body ?? new Uint8Array(0));
  if (first.kind !== "append") throw new Error("not an append");
  expect(joinArrived(framer, first)).toEqual({ request: first, count: 1, addedBytes: 0 });
  expect(framer.take()?.body).toEqual(bad);
});

test("however messages are cut into pieces, each byte of WAL stays where it belongs", () => {
  const message = fc.record({ sizeBytes: fc.oneof({ weight: 9, arbitrary: fc.integer({ min: 1, max: 300 }) }, { weight: 1, arbitrary: fc.constant(5000) }), gap: fc.constantFrom(0, 0, 0, 0, 8), term: fc.constantFrom(1, 1, 1, 2) });
  fc.assert(
    fc.property(fc.array(message, { minLength: 1, maxLength: 30 }), fc.array(fc.integer({ min: 40, max: 6000 }), { minLength: 1, maxLength: 8 }), (wanted, piecesBytes) => {
      let lsn = START;
      const messages = wanted.map(({ sizeBytes, gap, term }) => {
        const one = append(lsn + gap, sizeBytes, { term });
        lsn = one.endLsn;
        return one;
      });
      let at = 0;
      for (const joined of received(messages, piecesBytes)) {
        if (joined.kind !== "append") throw new Error("not an append");
        const first = messages[at];
        expect(joined.beginLsn).toBe(first.beginLsn);
        expect(Buffer.compare(joined.walData, walAt(joined.beginLsn, joined.endLsn - joined.beginLsn))).toBe(0);
        while (messages[at].endLsn !== joined.endLsn) at++;
        expect([joined.commitLsn, joined.term]).toEqual([messages[at].commitLsn, messages[at].term]);
        at++;
      }
    }),
    { numRuns: 100 },
  );
});
