/**
 * S3 and what speaks its protocol. Path-style addresses, Signature V4 over the payload's SHA-256; files above 16 MiB go
 * up in parts, so that memory stays bounded. The object appears when the upload completes, as a whole.
 *
 * Source: Amazon S3 API reference (PutObject, multipart upload, ListObjectsV2, DeleteObjects, CopyObject).
 */
import { allocateBytes } from "../kit/buffers.ts";
import { createHash } from "node:crypto";
import { AwsV4Signer } from "aws4fetch";
import { utf8 } from "../kit/bytes.ts";
import { invariant, StrataError } from "../kit/errors.ts";
import type { FileHandle } from "../platform/files.ts";
import type { Platform } from "../platform/platform.ts";
import { ConcurrencyLimit } from "./concurrency-limit.ts";
import { checkStatus, type HttpFetch, RequestTimeout, requestFailed, responseChunks } from "./http-request.ts";
import { bodyWithEnd, type ByteRange, checkObjectKey, type Download, type ListOptions, type ListPage, LIST_PAGE_MAX, objectNotFound, type OperationOptions, type RemoteStorage, storageUnavailable, type UploadSource } from "./remote-storage.ts";
import { escapeXml, xmlBlocks, xmlText } from "./xml.ts";

export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

export interface S3Options {
  /** Scheme, host and port: `https://s3.eu-central-1.amazonaws.com`. */
  readonly endpoint: string;
  readonly region: string;
  readonly bucket: string;
  /** Prepended to all keys; ends in "/" or is empty. */
  readonly prefix?: string;
  /** Asked for each request, so that they may be rotated. */
  readonly credentials: () => Promise<S3Credentials>;
  readonly platform: Pick<Platform, "clock" | "files">;
  readonly fetch: HttpFetch;
  readonly maxConcurrent?: number;
  readonly timeoutMs?: number;
}

const PART_BYTES = 8 * 1024 * 1024;
const SINGLE_MAX_BYTES = 16 * 1024 * 1024;
const MAX_KEYS_PER_DELETE = 1000;
const DEFAULT_CONCURRENT = 50;
const DEFAULT_TIMEOUT_MS = 120_000;

interface Request {
  readonly method: "GET" | "PUT" | "POST" | "DELETE";
  /** Null for the bucket itself. */
  readonly key: string | null;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  readonly what: string;
  readonly signal?: AbortSignal;
}

export class S3Storage implements RemoteStorage {
  readonly maxKeysPerDelete = MAX_KEYS_PER_DELETE;
  readonly #options: S3Options;
  readonly #prefix: string;
  readonly #limit: ConcurrencyLimit;

  constructor(options: S3Options) {
    this.#options = options;
    this.#prefix = options.prefix ?? "";
    invariant(this.#prefix === "" || this.#prefix.endsWith("/"), "an S3 prefix ends in a slash");
    this.#limit = new ConcurrencyLimit(options.maxConcurrent ?? DEFAULT_CONCURRENT);
  }

  // ---- Requests

  /** The response, whatever its status, with its body not read yet. */
  async #send(request: Request, timeout: RequestTimeout): Promise<Response> {
    const { fetch, region, credentials, platform } = this.#options;
    const body = request.body ?? new Uint8Array(0);
    const signer = new AwsV4Signer({
      ...(await credentials()),
      method: request.method,
      url: this.#url(request),
      headers: { ...request.headers, "x-amz-content-sha256": createHash("sha256").update(body).digest("hex") },
      body,
      service: "s3",
      region,
      datetime: new Date(platform.clock.wallMs()).toISOString().replace(/[:-]|\.\d{3}/g, ""),
    });
    const signed = await signer.sign();
    try {
      return await fetch(signed.url.toString(), { method: request.method, headers: signed.headers, body: request.body, signal: timeout.signal });
    } catch (error) {
      throw requestFailed(request.what, error, request.signal);
    }
  }

  #url({ key, query = {} }: Request): string {
    const { endpoint, bucket } = this.#options;
    const path = key === null ? "" : `/${(this.#prefix + key).split("/").map(encodeURIComponent).join("/")}`;
    const search = new URLSearchParams(query).toString().replaceAll("+", "%20");
    return `${endpoint}/${bucket}${path}${search === "" ? "" : `?${search}`}`;
  }

  /** A request whose answer is short: its text. @throws StrataError by status */
  #request(request: Request): Promise<{ text: string; headers: Headers }> {
    return this.#limit.run(async () => {
      request.signal?.throwIfAborted();
      const timeout = new RequestTimeout(this.#options.platform.clock, this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS, request.signal);
      try {
        const response = await this.#send(request, timeout);
        const text = await response.text().catch((error: unknown) => {
          throw requestFailed(request.what, error, request.signal);
        });
        checkStatus(response.status, { what: request.what, key: request.key ?? "", text });
        return { text, headers: response.headers };
      } finally {
        timeout.end();
      }
    }, request.signal);
  }

  // ---- Uploads

  async upload(key: string, source: UploadSource, options: OperationOptions = {}): Promise<void> {
    checkObjectKey(key);
    const what = `upload of ${key}`;
    if ("bytes" in source && source.bytes.length <= SINGLE_MAX_BYTES) return await this.#put(key, source.bytes, options);
    const sizeBytes = "bytes" in source ? source.bytes.length : source.sizeBytes;
    const file = "bytes" in source ? null : await this.#options.platform.files.open(source.filePath, "read");
    const part = (start: number, end: number) => ("bytes" in source ? Promise.resolve(source.bytes.subarray(start, end)) : readPart(file, start, end));
    try {
      if (sizeBytes <= SINGLE_MAX_BYTES) await this.#put(key, await part(0, sizeBytes), options);
      else await this.#uploadParts({ key, sizeBytes, part, what, signal: options.signal });
    } finally {
      await file?.close();
    }
  }

  async #put(key: string, body: Uint8Array, options: OperationOptions): Promise<void> {
    await this.#request({ method: "PUT", key, body, what: `upload of ${key}`, signal: options.signal });
  }

  async #uploadParts(upload: { key: string; sizeBytes: number; part: (start: number, end: number) => Promise<Uint8Array>; what: string; signal?: AbortSignal }): Promise<void> {
    const { key, sizeBytes, part, what, signal } = upload;
    const started = await this.#request({ method: "POST", key, query: { uploads: "" }, what, signal });
    const uploadId = xmlText(started.text, "UploadId");
    if (uploadId === null) throw storageUnavailable(`${what}: no upload id in the answer`);
    try {
      const tags: string[] = [];
      for (let start = 0; start < sizeBytes; start += PART_BYTES) {
        const body = await part(start, Math.min(start + PART_BYTES, sizeBytes));
        const { headers } = await this.#request({ method: "PUT", key, query: { partNumber: String(tags.length + 1), uploadId }, body, what, signal });
        tags.push(headers.get("etag") ?? "");
      }
      const list = tags.map((tag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${escapeXml(tag)}</ETag></Part>`).join("");
      const body = utf8(`<CompleteMultipartUpload>${list}</CompleteMultipartUpload>`);
      const done = await this.#request({ method: "POST", key, query: { uploadId }, body, what, signal });
      failOnErrorBody(done.text, what);
    } catch (error) {
      await this.#request({ method: "DELETE", key, query: { uploadId }, what }).catch(() => {});
      throw error;
    }
  }

  // ---- Downloads

  /** Counts against the concurrency limit until its body has ended. */
  async download(key: string, options: OperationOptions & { readonly range?: ByteRange } = {}): Promise<Download> {
    checkObjectKey(key);
    const what = `download of ${key}`;
    const { range, signal } = options;
    if (range?.end !== undefined && range.end <= range.start) throw new StrataError("fix-input", "bad-range", `empty range of object ${key}`);
    const headers: Record<string, string> = range === undefined ? {} : { range: `bytes=${range.start}-${range.end === undefined ? "" : range.end - 1}` };
    const release = await this.#limit.take(signal);
    const timeout = new RequestTimeout(this.#options.platform.clock, this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS, signal);
    const end = () => {
      timeout.end();
      release();
    };
    try {
      const response = await this.#send({ method: "GET", key, headers, what, signal }, timeout);
      if (response.status !== 200 && response.status !== 206) checkStatus(response.status, { what, key, text: await response.text() });
      const sizeBytes = Number(response.headers.get("content-length") ?? Number.NaN);
      if (!Number.isSafeInteger(sizeBytes)) throw storageUnavailable(`${what}: no length in the answer`);
      return { sizeBytes, body: bodyWithEnd(responseChunks(response, { what, signal, progress: () => timeout.restart() }), async () => end()) };
    } catch (error) {
      end();
      throw error;
    }
  }

  // ---- Listing, deletion, copy

  async list(options: ListOptions): Promise<ListPage> {
    const query: Record<string, string> = { "list-type": "2", prefix: this.#prefix + options.prefix, "max-keys": String(Math.min(options.maxKeys ?? LIST_PAGE_MAX, LIST_PAGE_MAX)) };
    if (options.delimiter !== undefined) query.delimiter = options.delimiter;
    if (options.continuation !== undefined) query["continuation-token"] = options.continuation;
    const { text } = await this.#request({ method: "GET", key: null, query, what: `listing of "${options.prefix}"`, signal: options.signal });
    const strip = (key: string | null) => (key ?? "").slice(this.#prefix.length);
    return {
      objects: xmlBlocks(text, "Contents").map((block) => ({ key: strip(xmlText(block, "Key")), sizeBytes: Number(xmlText(block, "Size")), modifiedMs: Date.parse(xmlText(block, "LastModified") ?? "") })),
      prefixes: xmlBlocks(text, "CommonPrefixes").map((block) => strip(xmlText(block, "Prefix"))),
      continuation: xmlText(text, "IsTruncated") === "true" ? xmlText(text, "NextContinuationToken") : null,
    };
  }

  async delete(keys: readonly string[], options: OperationOptions = {}): Promise<void> {
    for (const key of keys) checkObjectKey(key);
    for (let at = 0; at < keys.length; at += MAX_KEYS_PER_DELETE) {
      const batch = keys.slice(at, at + MAX_KEYS_PER_DELETE);
      const objects = batch.map((key) => `<Object><Key>${escapeXml(this.#prefix + key)}</Key></Object>`).join("");
      const body = utf8(`<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>${objects}</Delete>`);
      const headers = { "content-md5": createHash("md5").update(body).digest("base64"), "content-type": "application/xml" };
      const what = `deletion of ${batch.length} objects`;
      const { text } = await this.#request({ method: "POST", key: null, query: { delete: "" }, headers, body, what, signal: options.signal });
      failOnErrorBody(text, what);
    }
  }

  async copy(from: string, to: string, options: OperationOptions = {}): Promise<void> {
    checkObjectKey(from);
    checkObjectKey(to);
    const source = `/${this.#options.bucket}/${(this.#prefix + from).split("/").map(encodeURIComponent).join("/")}`;
    const what = `copy of ${from}`;
    try {
      const { text } = await this.#request({ method: "PUT", key: to, headers: { "x-amz-copy-source": source }, what, signal: options.signal });
      failOnErrorBody(text, what);
    } catch (error) {
      if (error instanceof StrataError && error.code === "object-not-found") throw objectNotFound(from, error);
      throw error;
    }
  }
}

/** S3 may answer 200 and tell of an error in the body. */
function failOnErrorBody(text: string, what: string): void {
  const [error] = xmlBlocks(text, "Error");
  if (error !== undefined) throw storageUnavailable(`${what}: ${xmlText(error, "Code") ?? "?"} ${xmlText(error, "Message") ?? ""}`);
}

async function readPart(file: FileHandle | null, start: number, end: number): Promise<Uint8Array> {
  invariant(file !== null, "parts are read from an open file");
  const bytes = allocateBytes(end - start);
  const got = await file.read(bytes, start);
  if (got < bytes.length) throw new StrataError("corrupt", "file-too-short", `${file.path} ends at ${start + got}, ${end} bytes wanted`);
  return bytes;
}
