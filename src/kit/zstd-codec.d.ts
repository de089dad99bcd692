declare module "zstd-codec" {
  interface Binding {
    readonly Simple: new () => { compress(bytes: Uint8Array, level: number): Uint8Array | null; decompress(bytes: Uint8Array): Uint8Array | null };
  }
  export const ZstdCodec: { run(ready: (binding: Binding) => void): void };
}
