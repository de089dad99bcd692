import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decodeMessage, encodeMessage, type BrokerMessage, peekTenantTimelineId, unwrapTyped } from "../../src/broker/api/messages.ts";
import { decodeFilterRequest, decodeSubscribeInfoRequest, encodeFilterRequest, encodeSubscribeInfoRequest } from "../../src/broker/api/requests.ts";
import { isStrataError } from "../../src/kit/errors.ts";

const id = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => bytes.toHex());
const ttid = fc.record({ tenantId: id, timelineId: id });
const lsn = fc.oneof(fc.constant(0), fc.maxSafeNat());
const info = fc
  .tuple(
    ttid,
    fc.record({
      safekeeperId: fc.nat(), term: lsn, lastLogTerm: lsn, flushLsn: lsn, commitLsn: lsn, backupLsn: lsn, remoteConsistentLsn: lsn,
      peerHorizonLsn: lsn, localStartLsn: lsn, standbyHorizon: lsn, safekeeperConnstr: fc.string({ size: "large", maxLength: 1000 }), httpConnstr: fc.string(),
    }),
    fc.record({ availabilityZone: fc.string(), httpsConnstr: fc.string() }, { requiredKeys: [] }),
  )
  .map(([a, b, c]) => ({ ...a, ...b, ...c }));
const message: fc.Arbitrary<BrokerMessage> = fc.oneof(
  info.map((value) => ({ type: "timeline-info" as const, info: value })),
  ttid.map((request) => ({ type: "discovery-request" as const, request })),
  fc
    .tuple(ttid, fc.record({ safekeeperId: fc.nat(), commitLsn: lsn, safekeeperConnstr: fc.string(), standbyHorizon: lsn }), fc.record({ availabilityZone: fc.string() }, { requiredKeys: [] }))
    .map(([a, b, c]) => ({ type: "discovery-response" as const, response: { ...a, ...b, ...c } })),
);

describe("broker messages", () => {
  test("what is encoded is decoded", () => {
    fc.assert(fc.property(message, (value) => expect(decodeMessage(encodeMessage(value))).toEqual(value)));
  });

  test("the timeline can be read without decoding the message", () => {
    fc.assert(
      fc.property(info, (value) => {
        const { type, inner } = unwrapTyped(encodeMessage({ type: "timeline-info", info: value }));
        expect(peekTenantTimelineId(type, inner)).toEqual({ tenantId: value.tenantId, timelineId: value.timelineId });
      }),
    );
  });

  test("mutated bytes give a message or a typed error", () => {
    fc.assert(
      fc.property(message, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }), fc.nat(), (value, flips, cut) => {
        const bytes = encodeMessage(value).slice();
        for (const [at, byte] of flips) bytes[at % bytes.length] = byte;
        try {
          decodeMessage(bytes.subarray(0, cut % (bytes.length + 1)));
        } catch (error) {
          if (!isStrataError(error)) throw error;
          expect(error.kind).toBe("fix-input");
        }
      }),
      { numRuns: 2000 },
    );
  });

  test("requests survive the round trip", () => {
    fc.assert(
      fc.property(fc.option(ttid), fc.uniqueArray(fc.constantFrom(2 as const, 3 as const, 4 as const)), (timeline, types) => {
        expect(decodeSubscribeInfoRequest(encodeSubscribeInfoRequest(timeline))).toEqual(timeline);
        expect(decodeFilterRequest(encodeFilterRequest({ types, timeline }))).toEqual({ types, timeline });
      }),
    );
  });
});
