import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { crc32c } from "../../src/kit/crc32c.ts";
import { FOLD_CAPACITY_BYTES, TERMS, foldMessage, leavesRegisterZero } from "../../src/kit/crc32c-fold.ts";
import { add, branchIf, constant, get, isLess, load, moduleOf, repeat, store, tee, xor } from "../../src/kit/wasm-code.ts";

const seed = Math.floor(Math.random() * 1e6);
const REGISTER_ZERO = 0xffff_ffff;

/** Bytes of this length that leave the register at zero: the first four undo what the others make of it. */
function zeroMessage(length: number, salt: number): Uint8Array {
  const bytes = Uint8Array.from({ length }, (_, i) => Math.imul(i + salt, 0x9e37_79b1) >>> 24);
  // Four bytes equal to the register take it to zero.
  const register = ~crc32c(bytes, 0, length - 4, REGISTER_ZERO);
  new DataView(bytes.buffer).setInt32(length - 4, register, true);
  return bytes;
}

describe(`bytes that leave the register zero (seed ${seed})`, () => {
  test("the four terms are a multiple of the polynomial", () => {
    // x^n modulo the polynomial, bits reflected, n = 0 being the highest bit.
    const powers = TERMS.map((bytes) => {
      let power = 0x8000_0000;
      for (let bit = 0; bit < 8 * bytes; bit++) power = (power & 1) !== 0 ? (power >>> 1) ^ 0x82f6_3b78 : power >>> 1;
      return power;
    });
    expect(powers.reduce((sum, power) => sum ^ power, 0)).toBe(0);
  });

  test("are found, of any length, whatever was there before", () => {
    const lengths = fc.oneof(fc.integer({ min: 4, max: 20_000 }), fc.integer({ min: 20_000, max: FOLD_CAPACITY_BYTES }), fc.constant(FOLD_CAPACITY_BYTES));
    fc.assert(fc.property(lengths, fc.nat(), (length, salt) => {
      foldMessage.fill(salt & 0xff);
      foldMessage.set(zeroMessage(length, salt));
      expect(leavesRegisterZero(length)).toBe(true);
    }), { seed, numRuns: 200 });
  });

  test("are told from those with some bits changed", () => {
    const flips = fc.array(fc.nat(), { minLength: 1, maxLength: 4 });
    fc.assert(fc.property(fc.integer({ min: 4, max: FOLD_CAPACITY_BYTES }), flips, (length, bits) => {
      const message = zeroMessage(length, length);
      const changed = message.slice();
      for (const flip of bits) {
        const bit = flip % (8 * length);
        changed[bit >> 3] ^= 1 << (bit & 7);
      }
      foldMessage.set(changed);
      expect(leavesRegisterZero(length)).toBe(crc32c(changed, 0, length, REGISTER_ZERO) === REGISTER_ZERO);
    }), { seed, numRuns: 200 });
  });
});

test("a WebAssembly loop of every instruction there is copies words, added to those behind", () => {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const bytes = new Uint8Array(memory.buffer);
  bytes.forEach((_, i) => (bytes[i] = (i * 7) ^ (i >> 8)));
  const before = bytes.slice();
  const [from, end] = [0, 1];
  const code = moduleOf(2, repeat(
    get(from), constant(-100), add, get(from), load(0), get(from), load(200), xor, store(40_100),
    get(from), constant(16), add, tee(from), get(end), isLess, branchIf(0),
  ));
  const { run } = new WebAssembly.Instance(new WebAssembly.Module(code), { of: { memory } }).exports as { run: (from: number, end: number) => void };
  run(1000, 1160);
  const expected = before.slice();
  for (let i = 1000; i < 1160; i++) expected[i + 40_000] = before[i] ^ before[i + 200];
  expect(Buffer.compare(bytes, expected)).toBe(0);
});
