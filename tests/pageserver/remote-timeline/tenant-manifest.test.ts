import { expect, test } from "bun:test";
import { utf8 } from "../../../src/kit/bytes.ts";
import { decodeTenantManifest, encodeTenantManifest } from "../../../src/pageserver/remote-timeline/tenant-manifest.ts";

const ROOT = "5c4df612fd159e63c1b7853fe94d97da";
const BRANCH = "f3def5823ad7080d2ea538d8e12163fa";

test("what was written is read", () => {
  const manifest = {
    stripeBlocks: 32_768,
    offloaded: [
      { timelineId: ROOT, ancestor: null, archivedAt: "2025-03-07T11:07:11.373" },
      { timelineId: BRANCH, ancestor: { timelineId: ROOT, lsn: 0x1f79038 }, archivedAt: "2025-03-05T11:10:22.257" },
    ],
  };
  expect(decodeTenantManifest(encodeTenantManifest(manifest))).toEqual(manifest);
});

test("documents of the peer's, of any version, with unknown fields", () => {
  expect(decodeTenantManifest(utf8('{"version":0}'))).toEqual({ stripeBlocks: null, offloaded: [] });
  const text = `{"version":1,"later":[1],"offloaded_timelines":[{"timeline_id":"${ROOT}","archived_at":"2025-03-07T11:07:11.373105434"},{"timeline_id":"${BRANCH}","ancestor_timeline_id":"${ROOT}","ancestor_retain_lsn":"0/1F79038","archived_at":"2025-03-05T11:10:22.257901390"}]}`;
  expect(decodeTenantManifest(utf8(text)).offloaded.map(({ ancestor }) => ancestor?.lsn ?? null)).toEqual([null, 0x1f79038]);
});

test("anything else is refused, and so is every flipped bit", () => {
  for (const text of ["", "[]", "{}", '{"version":1,"offloaded_timelines":[{}]}', '{"version":1,"offloaded_timelines":[{"timeline_id":"xyz","archived_at":""}]}', '{"version":1,"offloaded_timelines":{}}']) {
    expect(() => decodeTenantManifest(utf8(text))).toThrow(expect.objectContaining({ code: "bad-tenant-manifest" }));
  }
  const bytes = encodeTenantManifest({ stripeBlocks: null, offloaded: [{ timelineId: ROOT, ancestor: null, archivedAt: "2025-03-07T11:07:11.373" }] });
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const damaged = bytes.slice();
    damaged[bit >> 3] ^= 1 << (bit & 7);
    expect(() => decodeTenantManifest(damaged)).toThrow(expect.objectContaining({ code: "bad-tenant-manifest" }));
  }
});
