import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { concatBytes } from "../../src/kit/bytes.ts";
import { PgFramer } from "../../src/wire/framer.ts";

function message(tag: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(5 + body.length);
  bytes[0] = tag;
  new DataView(bytes.buffer).setUint32(1, body.length + 4);
  bytes.set(body, 5);
  return bytes;
}

describe("framer", () => {
  test("gives the same messages however the stream is cut", () => {
    const bodies = fc.array(fc.tuple(fc.integer({ min: 65, max: 122 }), fc.uint8Array({ maxLength: 40 })), { maxLength: 20 });
    fc.assert(
      fc.property(bodies, fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }), fc.boolean(), (messages, cuts, countOften) => {
        const stream = concatBytes(messages.map(([tag, body]) => message(tag, body)));
        const framer = new PgFramer({ tagged: true, maxBytes: 100 });
        const got: [number, number[]][] = [];
        for (let at = 0, cut = 0; at < stream.length; cut++) {
          const end = Math.min(stream.length, at + cuts[cut % cuts.length]);
          framer.push(stream.slice(at, end));
          at = end;
          for (;;) {
            const pending = countOften ? framer.pending : -1;
            const frame = framer.take();
            if (countOften) expect(frame === null).toBe(pending === 0);
            if (frame === null) break;
            if (countOften) expect(framer.pending).toBe(pending - 1);
            got.push([frame.tag, [...frame.body]]);
          }
        }
        expect(got).toEqual(messages.map(([tag, body]) => [tag, [...body]]));
        expect(framer.bufferedBytes).toBe(0);
      }),
    );
  });

  test("a message within one chunk is a view, not a copy", () => {
    const framer = new PgFramer({ tagged: true, maxBytes: 100 });
    const bytes = message(0x64, Uint8Array.of(1, 2, 3));
    framer.push(bytes);
    expect(framer.take()?.body.buffer).toBe(bytes.buffer);
  });

  test.each([0, 3, 101, 0xffff_ffff])("refuses length %d before it has arrived", (length) => {
    const header = new Uint8Array(5);
    header[0] = 0x51;
    new DataView(header.buffer).setUint32(1, length);
    const whole = new PgFramer({ tagged: true, maxBytes: 100 });
    whole.push(header.slice());
    expect(() => whole.take()).toThrow(/invalid length/);
    const cut = new PgFramer({ tagged: true, maxBytes: 100 });
    cut.push(header.slice(0, 2));
    expect(cut.take()).toBeNull();
    expect(() => cut.push(header.slice(2))).toThrow(/invalid length/);
  });
});
