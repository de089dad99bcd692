import { expect, test } from "bun:test";
import { parseRemoteStorageText } from "../../src/remote-storage/parse-config.ts";

const KEYS = { AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "secret", AZURE_STORAGE_ACCESS_KEY: "key" };

test("a directory", () => {
  expect(parseRemoteStorageText(`{local_path="/var/store"}`, {})).toEqual({ kind: "local", directory: "/var/store" });
});

test("S3, secrets from the environment, prefix with one slash at its end", () => {
  const text = `{ bucket_name = "wal", bucket_region = "eu-central-1", prefix_in_bucket = "/sk/", endpoint = "http://127.0.0.1:9000/", concurrency_limit = 7, max_keys_per_list_response = 5 }`;
  expect(parseRemoteStorageText(text, KEYS)).toEqual({
    kind: "s3", bucket: "wal", region: "eu-central-1", prefix: "sk/", endpoint: "http://127.0.0.1:9000", maxConcurrent: 7, credentials: { kind: "keys", accessKeyId: "id", secretAccessKey: "secret" },
  });
});

test("Azure, the account from the table or the environment", () => {
  const text = `{ container_name = "wal", container_region = "northeurope", storage_account = "acc" }`;
  expect(parseRemoteStorageText(text, KEYS)).toEqual({ kind: "azure", account: "acc", credentials: { kind: "key", accountKey: "key" }, container: "wal", prefix: "" });
  expect(parseRemoteStorageText(`{ container_name = "wal" }`, { ...KEYS, AZURE_STORAGE_ACCOUNT: "other" })).toMatchObject({ account: "other" });
});

test("limits and classes", () => {
  expect(parseRemoteStorageText(`{ bucket_name = "b", bucket_region = "r", upload_storage_class = "INTELLIGENT_TIERING", timeout = "10s", small_timeout = "1s" }`, KEYS)).toMatchObject({ storageClass: "INTELLIGENT_TIERING", timeoutMs: 10_000 });
  const azure = (more: string) => parseRemoteStorageText(`{ container_name = "c", storage_account = "a"${more} }`, KEYS);
  expect(azure("")).not.toHaveProperty("maxConcurrent");
  expect(azure(", conn_pool_size = 16")).toMatchObject({ maxConcurrent: 16 });
  expect(azure(", conn_pool_size = 16, concurrency_limit = 100")).toMatchObject({ maxConcurrent: 100 });
});

test.each([
  ["not TOML", "local_path", {}],
  ["no kind", "{}", {}],
  ["two kinds", `{ local_path = "/a", bucket_name = "b", bucket_region = "r" }`, KEYS],
  ["no region", `{ bucket_name = "b" }`, KEYS],
  ["no credentials", `{ bucket_name = "b", bucket_region = "r" }`, { AWS_EC2_METADATA_DISABLED: "true" }],
  ["no duration", `{ local_path = "/a", timeout = "soon" }`, {}],
  ["wrong type", `{ local_path = 5 }`, {}],
])("refused: %s", (_what, text, environment) => {
  expect(() => parseRemoteStorageText(text, environment)).toThrow(/remote storage/);
});
