import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { concatBytes, utf8 } from "../../../src/kit/bytes.ts";
import { type TarEvent, TarReader } from "../../../src/compute/base-backup/tar-reader.ts";
import { tarHeader } from "../fake-storage.ts";

function archive(files: readonly (readonly [string, Uint8Array])[]): Uint8Array {
  const parts = files.flatMap(([name, content]) => [tarHeader(name, content.length), content, new Uint8Array((512 - (content.length % 512)) % 512)]);
  return concatBytes([...parts, new Uint8Array(1024)]);
}

function readAll(bytes: Uint8Array, cuts: readonly number[]): { files: [string, string][]; reader: TarReader } {
  const reader = new TarReader();
  const files: [string, string][] = [];
  let open: string | null = null;
  const take = (event: TarEvent): void => {
    if (event.kind === "file") {
      expect(open).toBeNull();
      files.push([event.name, ""]);
      open = event.name;
    } else if (event.kind === "data") files[files.length - 1][1] += Buffer.from(event.bytes).toString("hex");
    else if (event.kind === "file-end") open = null;
  };
  for (let at = 0, cut = 0; at < bytes.length; cut++) {
    const end = Math.min(bytes.length, at + cuts[cut % cuts.length]);
    for (const event of reader.push(bytes.subarray(at, end))) take(event);
    at = end;
  }
  if (reader.ended) expect(open).toBeNull();
  return { files, reader };
}

describe("tar reader", () => {
  test("gives the same files however the archive is cut, empty ones too", () => {
    const names = fc.stringMatching(/^[a-z]{1,8}(\/[a-z0-9_.]{1,20}[a-z]){0,3}$/);
    const cuts = fc.array(fc.integer({ min: 1, max: 1500 }), { minLength: 1, maxLength: 8 });
    fc.assert(fc.property(fc.array(fc.tuple(names, fc.uint8Array({ maxLength: 2000 })), { maxLength: 6 }), cuts, (files, pieces) => {
      const { files: got, reader } = readAll(archive(files), pieces);
      expect(got).toEqual(files.map(([name, content]) => [name, Buffer.from(content).toString("hex")]));
      expect(reader.ended).toBe(true);
    }));
  });

  test("an archive cut short has not ended", () => {
    const bytes = archive([["a", utf8("content")]]);
    expect(readAll(bytes.subarray(0, bytes.length - 1024), [700]).reader.ended).toBe(false);
  });

  test.each(["../x", "/etc/passwd", "a/../../b", ".."])("refuses the name %p", (name) => {
    expect(() => readAll(archive([[name, utf8("x")]]), [512])).toThrow(/unsafe name/);
  });

  test("refuses a damaged header, a link, a size that is no number", () => {
    const bytes = archive([["a", utf8("x")]]);
    bytes[3] ^= 1;
    expect(() => readAll(bytes, [512])).toThrow(/checksum/);
    expect(() => readAll(concatBytes([tarHeader("a", 0, "2"), new Uint8Array(1024)]), [512])).toThrow(/neither a file/);
    const size = tarHeader("a", 1);
    size[124] = 0x39;
    size[148 + 5] += 0x39 - 0x30;
    expect(() => readAll(size, [512])).toThrow(/bad-tar|checksum|octal/);
  });
});
