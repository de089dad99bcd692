/** Golden bytes written down field by field, the way the documented layouts name them. Knows nothing of the code under test. */
export type Piece = Uint8Array;

function fixed(size: number, write: (view: DataView) => void): Piece {
  const bytes = new Uint8Array(size);
  write(new DataView(bytes.buffer));
  return bytes;
}

export const u8 = (value: number): Piece => Uint8Array.of(value);
export const u16 = (value: number): Piece => fixed(2, (view) => view.setUint16(0, value));
export const u32 = (value: number): Piece => fixed(4, (view) => view.setUint32(0, value));
export const u64 = (value: bigint | number): Piece => fixed(8, (view) => view.setBigUint64(0, BigInt.asUintN(64, BigInt(value))));
export const u16le = (value: number): Piece => fixed(2, (view) => view.setUint16(0, value, true));
export const u32le = (value: number): Piece => fixed(4, (view) => view.setUint32(0, value, true));
export const u64le = (value: bigint | number): Piece => fixed(8, (view) => view.setBigUint64(0, BigInt.asUintN(64, BigInt(value)), true));
export const text = (value: string): Piece => new TextEncoder().encode(value);
export const cstr = (value: string): Piece => text(`${value}\0`);
export const hex = (value: string): Piece => Uint8Array.fromHex(value);
export const zeros = (size: number): Piece => new Uint8Array(size);

export function bytes(...pieces: readonly Piece[]): Buffer {
  return Buffer.concat(pieces);
}
