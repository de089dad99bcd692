/** An object store that tells of each request before and after its effect, and fails it where it is told to. */
import { type ByteRange, type Download, type ListOptions, type ListPage, type OperationOptions, type RemoteStorage, storageUnavailable, type TimeTravelOptions, type UploadSource } from "../../../src/remote-storage/remote-storage.ts";

export const REMOTE_KINDS = ["upload", "download", "list", "delete"] as const;
export type RemoteKind = (typeof REMOTE_KINDS)[number];

/** refused: the request has no effect. answer-lost: it has. cut: a download ends in its middle. */
export type RemoteFault = "refused" | "answer-lost" | "cut";

export class WatchedStorage implements RemoteStorage {
  readonly #inner: RemoteStorage;
  readonly #onRequest: (kind: RemoteKind) => RemoteFault | undefined;

  constructor(inner: RemoteStorage, onRequest: (kind: RemoteKind) => RemoteFault | undefined) {
    this.#inner = inner;
    this.#onRequest = onRequest;
  }

  get maxKeysPerDelete(): number {
    return this.#inner.maxKeysPerDelete;
  }

  async #request<T>(kind: RemoteKind, work: () => Promise<T>): Promise<T> {
    const fault = this.#onRequest(kind);
    if (fault === "refused") throw storageUnavailable(`503 before the ${kind}`);
    const result = await work();
    if (fault === "answer-lost") throw storageUnavailable(`503 after the ${kind}`);
    return result;
  }

  upload(key: string, source: UploadSource, options?: OperationOptions): Promise<void> {
    return this.#request("upload", () => this.#inner.upload(key, source, options));
  }

  async download(key: string, options?: OperationOptions & { readonly range?: ByteRange }): Promise<Download> {
    const fault = this.#onRequest("download");
    if (fault === "refused") throw storageUnavailable("503 before the download");
    const download = await this.#inner.download(key, options);
    return fault === undefined ? download : { sizeBytes: download.sizeBytes, body: cut(download.body, Math.floor(download.sizeBytes / 2)) };
  }

  list(options: ListOptions): Promise<ListPage> {
    return this.#request("list", () => this.#inner.list(options));
  }

  delete(keys: readonly string[], options?: OperationOptions): Promise<void> {
    return this.#request("delete", () => this.#inner.delete(keys, options));
  }

  copy(from: string, to: string, options?: OperationOptions): Promise<void> {
    return this.#request("upload", () => this.#inner.copy(from, to, options));
  }

  timeTravelRecover(options: TimeTravelOptions): Promise<void> {
    return this.#request("upload", () => this.#inner.timeTravelRecover(options));
  }
}

async function* cut(body: AsyncIterable<Uint8Array>, at: number): AsyncGenerator<Uint8Array> {
  let passed = 0;
  for await (const chunk of body) {
    if (passed + chunk.length > at) {
      if (at > passed) yield chunk.subarray(0, at - passed);
      break;
    }
    passed += chunk.length;
    yield chunk;
  }
  throw storageUnavailable(`the download was cut after ${at} bytes`);
}
