import { expect, test } from "bun:test";
import { dataViewOf } from "../../../src/kit/bytes.ts";
import { encodeValue } from "../../../src/interpret/value-codec.ts";
import type { Value } from "../../../src/interpret/value.ts";
import { relBlockKey } from "../../../src/keyspace/mapping.ts";
import { RealClock } from "../../../src/platform/real/clock.ts";
import { Pacer } from "../../../src/pageserver/layers/pacer.ts";
import { Reconstructor } from "../../../src/pageserver/timeline/reconstruct.ts";
import { encodeRecord } from "../../../src/postgres/wal/encode-record.ts";
import { setPageLsn } from "../../../src/postgres/page/page-layout.ts";

const REL = { spcOid: 1663, dbOid: 5, relNumber: 16384, fork: 0 };
const KEY = relBlockKey(REL, 7);
const GENERIC = 20;

/** A page without items, its free space between the pointers. */
function emptyPage(): Uint8Array {
  const page = new Uint8Array(8192);
  const view = dataViewOf(page);
  view.setUint16(12, 24, true);
  view.setUint16(14, 8000, true);
  view.setUint16(16, 8000, true);
  view.setUint16(18, 8192 | 4, true);
  return page;
}

/** A generic record that writes `text` at an offset of block 7, which is its second reference. */
function patch(offset: number, bytes: Uint8Array, options: { rmid?: number; block?: number } = {}): Value {
  const fragment = new Uint8Array(4 + bytes.length);
  dataViewOf(fragment).setUint16(0, offset, true);
  dataViewOf(fragment).setUint16(2, bytes.length, true);
  fragment.set(bytes, 4);
  const blocks = [
    { id: 0, ...REL, blockNumber: 1, data: fragment.subarray(0, 0) },
    { id: 1, ...REL, blockNumber: options.block ?? 7, data: fragment },
  ];
  return { kind: "postgres", willInit: false, record: encodeRecord({ version: 17, rmid: options.rmid ?? GENERIC, info: 0, blocks }) };
}

function stored(lsn: number, value: Value) {
  return { lsn, willInit: value.kind === "image", bytes: encodeValue(value) };
}

const reconstructor = new Reconstructor(17);
const pacer = new Pacer(new RealClock());
const reconstruct = (values: ReturnType<typeof stored>[], base: Uint8Array | null = null) => reconstructor.reconstruct({ key: KEY, values, base }, pacer);

test("records are applied in LSN order to a copy of the image, and the last stamps its end", async () => {
  const image = emptyPage();
  const expected = emptyPage();
  expected.set([1, 9, 9], 8000);
  setPageLsn(dataViewOf(expected), 0x300);
  const values = [stored(0x300, patch(8001, Uint8Array.of(9, 9))), stored(0x200, patch(8000, Uint8Array.of(1, 2, 3).subarray(0, 2))), stored(0x100, { kind: "image", bytes: image })];
  expect(Buffer.compare(await reconstruct(values), expected)).toBe(0);
  expect(Buffer.compare(await reconstruct(values.slice(0, 2), image), expected)).toBe(0);
  expect(Buffer.compare(image, emptyPage())).toBe(0);
});

test("an image comes back in memory of the caller's own", async () => {
  const base = emptyPage();
  const page = await reconstruct([], base);
  page.fill(0xff);
  expect(Buffer.compare(base, emptyPage())).toBe(0);
});

test("what cannot be applied is a typed error with key and LSN", async () => {
  const base = emptyPage();
  await expect(reconstruct([stored(0x200, patch(8000, Uint8Array.of(1), { rmid: 131 }))], base)).rejects.toMatchObject({ code: "unsupported-redo", details: { lsn: "0/200", key: "000000067F00000005000040000000000007" } });
  await expect(reconstruct([stored(0x200, patch(8000, Uint8Array.of(1), { block: 8 }))], base)).rejects.toMatchObject({ code: "record-without-block", kind: "corrupt" });
  await expect(reconstruct([{ lsn: 0x200, willInit: false, bytes: Uint8Array.of(0, 0, 0, 9) }], base)).rejects.toMatchObject({ kind: "corrupt", details: { lsn: "0/200" } });
});
