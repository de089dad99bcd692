import { expect, test } from "bun:test";
import { utf8 } from "../../../src/kit/bytes.ts";
import { decodeCheckedJson, encodeCheckedJson } from "../../../src/pageserver/remote-timeline/checked-json.ts";

const DOCUMENT = { a: 1, text: "grüße", list: [{ b: null }] };
const options = { what: "document", code: "bad-document", required: false };

test("fields come back; other readers see an ordinary object", () => {
  const bytes = encodeCheckedJson(DOCUMENT);
  expect(decodeCheckedJson(bytes, { ...options, required: true })).toEqual(DOCUMENT);
  expect(JSON.parse(new TextDecoder().decode(bytes))).toMatchObject(DOCUMENT);
});

test("documents without checksum pass only where that is allowed", () => {
  expect(decodeCheckedJson(utf8(JSON.stringify(DOCUMENT)), options)).toEqual(DOCUMENT);
  expect(() => decodeCheckedJson(utf8(JSON.stringify(DOCUMENT)), { ...options, required: true })).toThrow("no checksum");
});

test("every flipped bit and every cut is found", () => {
  const bytes = encodeCheckedJson(DOCUMENT);
  for (let at = 0; at < bytes.length; at++) {
    for (let bit = 0; bit < 8; bit++) {
      const bad = bytes.slice();
      bad[at] ^= 1 << bit;
      expect(() => decodeCheckedJson(bad, options)).toThrow(expect.objectContaining({ code: "bad-document", kind: "corrupt" }));
    }
    expect(() => decodeCheckedJson(bytes.subarray(0, at), options)).toThrow(expect.objectContaining({ code: "bad-document" }));
  }
});
