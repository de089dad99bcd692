/**
 * Where object storage is, as operators write it: the peer's TOML table. Which keys there are says which kind it is.
 *
 * | kind | keys |
 * | --- | --- |
 * | directory | local_path |
 * | S3 | bucket_name, bucket_region, prefix_in_bucket, endpoint, upload_storage_class |
 * | Azure | container_name, container_region (not used), storage_account, prefix_in_container, endpoint (ours), conn_pool_size |
 *
 * All may have concurrency_limit, and timeout: of a request, and of a pause in a download. Without a concurrency_limit as many
 * requests go to Azure at once as its pool has connections. Other keys of the peer's are accepted and mean nothing
 * here. Secrets are never in it: they come from the environment, or from whom it names
 * (credentials/), under the names the vendors' own tools use.
 *
 * Source: the peer libs/remote_storage/src/config.rs.
 */
import { parse as parseToml } from "smol-toml";
import { z } from "zod";
import { StrataError } from "../kit/errors.ts";
import { parseDuration } from "../kit/humantime.ts";
import { awsCredentialSource } from "./credentials/aws.ts";
import { azureCredentialSource } from "./credentials/azure.ts";
import type { Environment } from "./credentials/environment.ts";
import type { RemoteStorageConfig } from "./open-remote-storage.ts";

export type { Environment };

const duration = z.string().transform((text, context): number => {
  try {
    return parseDuration(text);
  } catch {
    context.issues.push({ code: "custom", message: `"${text}" is not a duration`, input: text });
    return z.NEVER;
  }
});

const schema = z.object({
  local_path: z.string().min(1).optional(),
  bucket_name: z.string().min(1).optional(),
  bucket_region: z.string().min(1).optional(),
  prefix_in_bucket: z.string().optional(),
  endpoint: z.url({ protocol: /^https?$/ }).optional(),
  container_name: z.string().min(1).optional(),
  storage_account: z.string().min(1).optional(),
  prefix_in_container: z.string().optional(),
  upload_storage_class: z.string().regex(/^[A-Z][A-Z_0-9]*$/).optional(),
  conn_pool_size: z.number().int().min(0).max(10_000).optional(),
  concurrency_limit: z.number().int().min(1).max(10_000).optional(),
  timeout: duration.optional(),
});

type Table = z.output<typeof schema>;

/** @param text a TOML inline table, `{ local_path = "…" }`. @throws StrataError fix-input `bad-remote-storage` */
export function parseRemoteStorageText(text: string, environment: Environment): RemoteStorageConfig {
  try {
    return parseRemoteStorage(parseToml(`value = ${text}`).value, environment);
  } catch (cause) {
    if (cause instanceof StrataError) throw cause;
    throw bad(`"${text}" is not a TOML inline table`, cause);
  }
}

/** @param table as a TOML parser gives it. @throws StrataError fix-input `bad-remote-storage` */
export function parseRemoteStorage(table: unknown, environment: Environment): RemoteStorageConfig {
  const parsed = schema.safeParse(table);
  if (!parsed.success) throw bad(z.prettifyError(parsed.error));
  const { data } = parsed;
  const kinds = [data.local_path, data.bucket_name, data.container_name].filter((kind) => kind !== undefined);
  if (kinds.length !== 1) throw bad("exactly one of local_path, bucket_name and container_name is wanted");
  if (data.local_path !== undefined) return { kind: "local", directory: data.local_path };
  return data.bucket_name === undefined ? azure(data, environment) : s3(data, environment);
}

function s3(table: Table, environment: Environment): RemoteStorageConfig {
  const region = wanted("bucket_region", table.bucket_region);
  const credentials = awsCredentialSource(environment, region);
  if (credentials === null) throw bad("the environment names no credentials (AWS_ACCESS_KEY_ID, …), and AWS_EC2_METADATA_DISABLED forbids to ask the machine for some");
  return {
    kind: "s3",
    bucket: wanted("bucket_name", table.bucket_name),
    region,
    ...(table.endpoint === undefined ? {} : { endpoint: table.endpoint.replace(/\/+$/, "") }),
    ...(table.upload_storage_class === undefined ? {} : { storageClass: table.upload_storage_class }),
    prefix: prefix(table.prefix_in_bucket),
    credentials,
    ...limits(table),
  };
}

function azure(table: Table, environment: Environment): RemoteStorageConfig {
  return {
    kind: "azure",
    account: wanted("storage_account", table.storage_account ?? environment.AZURE_STORAGE_ACCOUNT),
    credentials: azureCredentialSource(environment),
    container: wanted("container_name", table.container_name),
    ...(table.endpoint === undefined ? {} : { endpoint: table.endpoint.replace(/\/+$/, "") }),
    prefix: prefix(table.prefix_in_container),
    ...(table.conn_pool_size ? { maxConcurrent: table.conn_pool_size } : {}),
    ...limits(table),
  };
}

function limits({ concurrency_limit: maxConcurrent, timeout: timeoutMs }: Table): { readonly maxConcurrent?: number; readonly timeoutMs?: number } {
  return { ...(maxConcurrent === undefined ? {} : { maxConcurrent }), ...(timeoutMs === undefined ? {} : { timeoutMs }) };
}

/** Empty, or ending in one slash. */
function prefix(text: string | undefined): string {
  const bare = (text ?? "").replace(/^\/+|\/+$/g, "");
  return bare === "" ? "" : `${bare}/`;
}

function wanted(name: string, value: string | undefined): string {
  if (value === undefined || value === "") throw bad(`${name} is missing`);
  return value;
}

function bad(what: string, cause?: unknown): StrataError {
  return new StrataError("fix-input", "bad-remote-storage", `remote storage: ${what}`, { cause });
}
