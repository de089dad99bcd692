/**
 * S3 and what speaks its protocol. Path-style addresses, Signature V4 over the payload's SHA-256; files above 16 MiB go
 * up in parts, so that memory stays bounded. The object appears when the upload completes, as a whole.
 *
 * Source: Amazon S3 API reference (PutObject, multipart upload, ListObjectsV2, DeleteObjects, CopyObject, ListObjectVersions).
 */
import { createHash } from "node:crypto";
import { AwsV4Signer } from "aws4fetch";
import { utf8 } from "../kit/bytes.ts";
import { invariant, isStrataError, StrataError } from "../kit/errors.ts";
import type { Platform } from "../platform/platform.ts";
import type { HttpFetch } from "./http-request.ts";
import { DEFAULT_TIMEOUT_MS, type ObjectRequest, ObjectRequests, type UploadParts, withUploadParts } from "./object-requests.ts";
import { type ByteRange, checkObjectKey, type Download, type ListOptions, type ListPage, LIST_PAGE_MAX, objectNotFound, type OperationOptions, type RemoteStorage, storageUnavailable, type TimeTravelOptions, type UploadSource } from "./remote-storage.ts";
import { listVersions } from "./s3-versions.ts";
import { planTimeTravel, timeTravelUnsupported } from "./time-travel.ts";
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
  /** Of uploads: `STANDARD_IA`, …; the bucket's unless given. */
  readonly storageClass?: string;
  readonly maxConcurrent?: number;
  readonly timeoutMs?: number;
}

const PART_BYTES = 8 * 1024 * 1024;
const SINGLE_MAX_BYTES = 16 * 1024 * 1024;
const MAX_KEYS_PER_DELETE = 1000;
const DEFAULT_CONCURRENT = 50;
const COPIES_AT_ONCE = 50;

export class S3Storage implements RemoteStorage {
  readonly maxKeysPerDelete = MAX_KEYS_PER_DELETE;
  readonly #options: S3Options;
  readonly #prefix: string;
  readonly #requests: ObjectRequests;

  constructor(options: S3Options) {
    this.#options = options;
    this.#prefix = options.prefix ?? "";
    invariant(this.#prefix === "" || this.#prefix.endsWith("/"), "an S3 prefix ends in a slash");
    const { platform, maxConcurrent = DEFAULT_CONCURRENT, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    this.#requests = new ObjectRequests({ clock: platform.clock, maxConcurrent, timeoutMs, send: (request, signal) => this.#send(request, signal) });
  }

  // ---- Requests

  async #send(request: ObjectRequest, signal: AbortSignal): Promise<Response> {
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
    return await fetch(signed.url.toString(), { method: request.method, headers: signed.headers, body: request.body, signal, redirect: "manual" });
  }

  #url({ key, query = {} }: ObjectRequest): string {
    const { endpoint, bucket } = this.#options;
    const path = key === null ? "" : `/${(this.#prefix + key).split("/").map(encodeStrictly).join("/")}`;
    const search = Object.entries(query).map(([name, value]) => `${encodeStrictly(name)}=${encodeStrictly(value)}`).join("&");
    return `${endpoint}/${bucket}${path}${search === "" ? "" : `?${search}`}`;
  }

  #storageClass(): Record<string, string> {
    const { storageClass } = this.#options;
    return storageClass === undefined ? {} : { "x-amz-storage-class": storageClass };
  }

  // ---- Uploads

  async upload(key: string, source: UploadSource, options: OperationOptions = {}): Promise<void> {
    checkObjectKey(key);
    const what = `upload of ${key}`;
    const { signal } = options;
    await withUploadParts(this.#options.platform.files, source, async (parts) => {
      if (parts.sizeBytes > SINGLE_MAX_BYTES) return await this.#uploadParts(parts, { key, what, signal });
      await this.#requests.run({ method: "PUT", key, headers: this.#storageClass(), body: await parts.part(0, parts.sizeBytes), what, signal });
    });
  }

  async #uploadParts({ sizeBytes, part }: UploadParts, upload: { readonly key: string; readonly what: string; readonly signal?: AbortSignal }): Promise<void> {
    const { key, what, signal } = upload;
    const started = await this.#requests.run({ method: "POST", key, query: { uploads: "" }, headers: this.#storageClass(), what, signal });
    const uploadId = xmlText(started.text, "UploadId");
    if (uploadId === null) throw storageUnavailable(`${what}: no upload id in the answer`);
    try {
      const tags: string[] = [];
      for (let start = 0; start < sizeBytes; start += PART_BYTES) {
        const body = await part(start, Math.min(start + PART_BYTES, sizeBytes));
        const { headers } = await this.#requests.run({ method: "PUT", key, query: { partNumber: String(tags.length + 1), uploadId }, body, what, signal });
        tags.push(headers.get("etag") ?? "");
      }
      const list = tags.map((tag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${escapeXml(tag)}</ETag></Part>`).join("");
      const body = utf8(`<CompleteMultipartUpload>${list}</CompleteMultipartUpload>`);
      const done = await this.#requests.run({ method: "POST", key, query: { uploadId }, body, what, signal });
      failOnErrorBody(done.text, what);
    } catch (error) {
      await this.#requests.run({ method: "DELETE", key, query: { uploadId }, what }).catch(() => {});
      throw error;
    }
  }

  // ---- Downloads

  download(key: string, options: OperationOptions & { readonly range?: ByteRange } = {}): Promise<Download> {
    return this.#requests.download(key, { ...options, rangeHeader: "range" });
  }

  // ---- Listing, deletion, copy

  async list(options: ListOptions): Promise<ListPage> {
    const query: Record<string, string> = { "list-type": "2", prefix: this.#prefix + options.prefix, "max-keys": String(Math.min(options.maxKeys ?? LIST_PAGE_MAX, LIST_PAGE_MAX)) };
    if (options.delimiter !== undefined) query.delimiter = options.delimiter;
    if (options.continuation !== undefined) query["continuation-token"] = options.continuation;
    const { text } = await this.#requests.run({ method: "GET", key: null, query, what: `listing of "${options.prefix}"`, signal: options.signal });
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
      const { text } = await this.#requests.run({ method: "POST", key: null, query: { delete: "" }, headers, body, what, signal: options.signal });
      failOnErrorBody(text, what);
    }
  }

  async copy(from: string, to: string, options: OperationOptions = {}): Promise<void> {
    checkObjectKey(from);
    checkObjectKey(to);
    await this.#copy({ from, to, signal: options.signal });
  }

  async #copy({ from, to, versionId, signal }: { readonly from: string; readonly to: string; readonly versionId?: string; readonly signal?: AbortSignal }): Promise<void> {
    const path = `/${this.#options.bucket}/${(this.#prefix + from).split("/").map(encodeStrictly).join("/")}`;
    const source = versionId === undefined ? path : `${path}?versionId=${encodeURIComponent(versionId)}`;
    const what = `copy of ${from}`;
    try {
      const { text } = await this.#requests.run({ method: "PUT", key: to, headers: { ...this.#storageClass(), "x-amz-copy-source": source }, what, signal });
      failOnErrorBody(text, what);
    } catch (error) {
      if (error instanceof StrataError && error.code === "object-not-found") throw objectNotFound(from, error);
      throw error;
    }
  }

  // ---- Time travel

  async timeTravelRecover(options: TimeTravelOptions): Promise<void> {
    const { prefix, maxVersions, signal } = options;
    const what = `versions of "${prefix}"`;
    const ask = async (query: Readonly<Record<string, string>>) => {
      try {
        return (await this.#requests.run({ method: "GET", key: null, query, what, signal })).text;
      } catch (error) {
        throw isStrataError(error, "storage-not-capable") ? timeTravelUnsupported("a store that does not list versions", error) : error;
      }
    };
    const { copies, deletions } = planTimeTravel(await listVersions({ storePrefix: this.#prefix, prefix, maxVersions, ask }), options);
    for (let at = 0; at < copies.length; at += COPIES_AT_ONCE) {
      const results = await Promise.allSettled(copies.slice(at, at + COPIES_AT_ONCE).map(({ key, versionId }) => this.#copy({ from: key, to: key, versionId, signal })));
      const failed = results.find((result) => result.status === "rejected");
      if (failed !== undefined) throw failed.reason;
    }
    await this.delete(deletions, { signal });
  }
}

/** As it is signed: some servers compare with what was sent, without encoding it anew. */
function encodeStrictly(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** S3 may answer 200 and tell of an error in the body. */
function failOnErrorBody(text: string, what: string): void {
  const [error] = xmlBlocks(text, "Error");
  if (error !== undefined) throw storageUnavailable(`${what}: ${xmlText(error, "Code") ?? "?"} ${xmlText(error, "Message") ?? ""}`);
}
