/**
 * WebAssembly, as far as our loops need it: instructions as the bytes they are, and the module around one function. Instructions
 * take their operands from a stack, as in `get(0), get(1), add`.
 *
 * Source: WebAssembly Core Specification, chapter 5 (Binary Format).
 */
export type Code = readonly number[];

/** Unsigned LEB128. */
function u32(value: number): Code {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...u32(value >>> 7)];
}

/** Signed LEB128. */
function s32(value: number): Code {
  return value >= -64 && value < 64 ? [value & 0x7f] : [(value & 0x7f) | 0x80, ...s32(value >> 7)];
}

/** Pushes a local; the parameters are the first. */
export const get = (local: number): Code => [0x20, ...u32(local)];
/** Sets a local to what is on top of the stack, which stays. */
export const tee = (local: number): Code => [0x22, ...u32(local)];
export const constant = (value: number): Code => [0x41, ...s32(value)];
export const add: Code = [0x6a];
/** Of unsigned numbers. */
export const isLess: Code = [0x49];
/** A word of 128 bits at the address on the stack plus `offset`, anyhow aligned. */
export const load = (offset: number): Code => [0xfd, 0x00, 0, ...u32(offset)];
/** Takes the address, then the word. */
export const store = (offset: number): Code => [0xfd, 0x0b, 0, ...u32(offset)];
/** Of words of 128 bits. */
export const xor: Code = [0xfd, 0x51];
/** Goes to the beginning of the loop `depth` loops out when the top of the stack is not zero. */
export const branchIf = (depth: number): Code => [0x0d, ...u32(depth)];
/** Done once, and again by `branchIf`. */
export const repeat = (...body: Code[]): Code => [0x03, 0x40, ...body.flat(), 0x0b];

const I32 = 0x7f;
const section = (id: number, ...content: Code[]): Code => {
  const bytes = content.flat();
  return [id, ...u32(bytes.length), ...bytes];
};
const name = (text: string): Code => [...u32(text.length), ...new TextEncoder().encode(text)];

/** A module that imports the memory `of.memory` and exports `run`, a function of so many numbers that returns nothing. */
export function moduleOf(parameters: number, ...body: Code[]): Uint8Array<ArrayBuffer> {
  const code = [0, ...body.flat(), 0x0b];
  return Uint8Array.from([
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [1, 0x60, ...u32(parameters)], Array.from({ length: parameters }, () => I32), [0]),
    ...section(2, [1], name("of"), name("memory"), [2, 0, 0]),
    ...section(3, [1, 0]),
    ...section(7, [1], name("run"), [0, 0]),
    ...section(10, [1], u32(code.length), code),
  ]);
}
