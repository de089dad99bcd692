/** Requests to those who hand out credentials: short ones, with short answers. */
import { utf8, utf8ToString } from "../../kit/bytes.ts";
import { StrataError } from "../../kit/errors.ts";
import type { Platform } from "../../platform/platform.ts";
import { answerText, type HttpFetch, RequestTimeout, requestFailed } from "../http-request.ts";
import { storageUnavailable } from "../remote-storage.ts";

export interface SecretTools {
  readonly platform: Pick<Platform, "clock" | "files">;
  readonly fetch: HttpFetch;
}

const TIMEOUT_MS = 5000;
const ANSWER_MAX_BYTES = 64 * 1024;
const SECRET_FILE_MAX_BYTES = 64 * 1024;

export interface SecretRequest {
  readonly what: string;
  readonly url: string;
  readonly method?: "GET" | "PUT";
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as a form, by POST. */
  readonly form?: Readonly<Record<string, string>>;
}

/** The answer's text. @throws StrataError unavailable `storage-unavailable`, without a word of what was asked or answered: they are secrets */
export async function askForSecret({ what, url, method = "GET", headers = {}, form }: SecretRequest, { platform, fetch }: SecretTools): Promise<string> {
  const timeout = new RequestTimeout(platform.clock, TIMEOUT_MS);
  const all = new Headers({ ...headers, ...(form === undefined ? {} : { "content-type": "application/x-www-form-urlencoded" }) });
  try {
    const response = await fetch(url, { method: form === undefined ? method : "POST", headers: all, ...(form === undefined ? {} : { body: utf8(new URLSearchParams(form).toString()) }), signal: timeout.signal, redirect: "manual" });
    const text = await answerText(response, { what, maxBytes: ANSWER_MAX_BYTES });
    if (response.status !== 200) throw storageUnavailable(`${what}: status ${response.status}`);
    return text;
  } catch (error) {
    throw requestFailed(what, error, undefined);
  } finally {
    timeout.end();
  }
}

/** @throws StrataError unavailable `storage-unavailable` unless it is an object with text under these names */
export function secretFields<N extends string>(json: string, what: string, names: readonly N[]): Readonly<Record<N, string>> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(json);
  } catch {
    throw storageUnavailable(`${what}: the answer is not JSON`);
  }
  const fields = Object.fromEntries(names.map((name) => [name, (parsed as Record<string, unknown> | null)?.[name]]));
  for (const name of names) {
    const value = fields[name];
    if (typeof value === "number") fields[name] = String(value);
    else if (typeof value !== "string" || value === "") throw storageUnavailable(`${what}: no ${name} in the answer`);
  }
  return fields as Record<N, string>;
}

/** A file that holds a token, read each time: those who give such tokens replace them. */
export async function readSecretFile({ platform }: SecretTools, path: string): Promise<string> {
  try {
    const bytes = await platform.files.readFile(path);
    if (bytes.length > SECRET_FILE_MAX_BYTES) throw new StrataError("fix-input", "bad-remote-storage", `${path} has ${bytes.length} bytes: it is no token`);
    return utf8ToString(bytes).trim();
  } catch (error) {
    throw storageUnavailable(`the token in ${path} cannot be read`, error);
  }
}

export function expiry(text: string, what: string): number {
  const expiresMs = Date.parse(text);
  if (Number.isNaN(expiresMs)) throw storageUnavailable(`${what}: "${text.slice(0, 40)}" is no time to end`);
  return expiresMs;
}
