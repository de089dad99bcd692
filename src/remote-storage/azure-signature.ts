/**
 * Shared Key authorization of Azure Blob requests: HMAC-SHA256, with the account key, over method, standard headers,
 * `x-ms-` headers and resource.
 *
 * Source: Azure Storage REST documentation, "Authorize with Shared Key" (Blob service, versions since 2015-02-21).
 */
import { createHmac } from "node:crypto";

export interface AzureRequestToSign {
  readonly method: string;
  readonly url: URL;
  readonly headers: Headers;
  /** 0 is signed as empty. */
  readonly contentLength: number;
}

const STANDARD_HEADERS = ["content-encoding", "content-language"];
const CONDITIONAL_HEADERS = ["if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"];

/** The value of the Authorization header. @param accountKey base64 */
export function azureAuthorization(account: string, accountKey: string, request: AzureRequestToSign): string {
  const { method, url, headers, contentLength } = request;
  const get = (name: string) => headers.get(name) ?? "";
  const own = [...headers.keys()].filter((name) => name.startsWith("x-ms-")).sort();
  const lines = [
    method,
    ...STANDARD_HEADERS.map(get),
    contentLength === 0 ? "" : String(contentLength),
    get("content-md5"),
    get("content-type"),
    // The date is in x-ms-date.
    "",
    ...CONDITIONAL_HEADERS.map(get),
    ...own.map((name) => `${name}:${get(name).trim()}`),
    canonicalResource(account, url),
  ];
  const signature = createHmac("sha256", Buffer.from(accountKey, "base64")).update(lines.join("\n")).digest("base64");
  return `SharedKey ${account}:${signature}`;
}

function canonicalResource(account: string, url: URL): string {
  const parameters = new Map<string, string[]>();
  for (const [name, value] of url.searchParams) parameters.set(name.toLowerCase(), [...(parameters.get(name.toLowerCase()) ?? []), value]);
  const lines = [...parameters].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, values]) => `\n${name}:${values.sort().join(",")}`);
  return `/${account}${url.pathname}${lines.join("")}`;
}
