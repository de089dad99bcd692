/** From configuration to a storage. */
import type { Metrics } from "../observability/metrics.ts";
import type { Clock } from "../platform/clock.ts";
import type { Platform } from "../platform/platform.ts";
import { AzureStorage } from "./azure.ts";
import { type AwsCredentialSource, awsCredentials } from "./credentials/aws.ts";
import { type AzureCredentialSource, azureCredentials } from "./credentials/azure.ts";
import type { HttpFetch } from "./http-request.ts";
import { LocalDirectoryStorage } from "./local-directory.ts";
import { MeasuredStorage } from "./measured.ts";
import type { RemoteStorage } from "./remote-storage.ts";
import { type S3Credentials, S3Storage } from "./s3.ts";

export type RemoteStorageConfig =
  | { readonly kind: "local"; readonly directory: string }
  | {
      readonly kind: "s3";
      readonly bucket: string;
      readonly region: string;
      /** Unless given, Amazon's for the region. */
      readonly endpoint?: string;
      readonly prefix?: string;
      readonly credentials: AwsCredentialSource | S3Credentials;
      readonly storageClass?: string;
      readonly maxConcurrent?: number;
      readonly timeoutMs?: number;
    }
  | {
      readonly kind: "azure";
      readonly account: string;
      readonly credentials: AzureCredentialSource;
      readonly container: string;
      /** Unless given, Microsoft's for the account. */
      readonly endpoint?: string;
      readonly prefix?: string;
      readonly maxConcurrent?: number;
      readonly timeoutMs?: number;
    };

/** Measures what is not on this machine. */
export function measured(storage: RemoteStorage, kind: RemoteStorageConfig["kind"], tools: { readonly metrics: Metrics; readonly clock: Clock }): RemoteStorage {
  return kind === "local" ? storage : new MeasuredStorage(storage, tools);
}

/** @param tools.fetch the runtime's, for the kinds that speak HTTP */
export async function openRemoteStorage(config: RemoteStorageConfig, tools: { readonly platform: Platform; readonly fetch: HttpFetch }): Promise<RemoteStorage> {
  if (config.kind === "local") return await LocalDirectoryStorage.open(config.directory, tools.platform);
  if (config.kind === "s3") {
    const { credentials, endpoint = `https://s3.${config.region}.amazonaws.com` } = config;
    return new S3Storage({ ...config, ...tools, endpoint, credentials: "kind" in credentials ? awsCredentials(credentials, tools) : async () => credentials });
  }
  const { credentials, endpoint = `https://${config.account}.blob.core.windows.net` } = config;
  return new AzureStorage({ ...config, ...tools, endpoint, authorization: azureCredentials(credentials, tools) });
}
