/**
 * Where the right to use an Azure container comes from; the first whose names are in the environment is used.
 *
 * | kind | said by |
 * | --- | --- |
 * | key | AZURE_STORAGE_ACCESS_KEY: the account's key, base64 |
 * | sas | AZURE_STORAGE_SAS_TOKEN: a shared access signature, of the account or of the container |
 * | workload | AZURE_FEDERATED_TOKEN_FILE, AZURE_TENANT_ID, AZURE_CLIENT_ID: a pod's service account, exchanged at Entra ID |
 * | secret | AZURE_CLIENT_SECRET, AZURE_TENANT_ID, AZURE_CLIENT_ID: the same with a password |
 * | machine | nothing, or AZURE_CLIENT_ID alone: the machine's managed identity |
 *
 * Source: Azure Identity documentation (EnvironmentCredential, WorkloadIdentityCredential, ManagedIdentityCredential); Storage REST
 * documentation ("Authorize with Microsoft Entra ID", "Create a service SAS").
 */
import { storageUnavailable } from "../remote-storage.ts";
import type { Environment } from "./environment.ts";
import { type Expiring, Refreshed } from "./refreshed.ts";
import { askForSecret, readSecretFile, type SecretRequest, secretFields, type SecretTools } from "./secret-request.ts";

export type AzureCredentialSource =
  | { readonly kind: "key"; readonly accountKey: string }
  | { readonly kind: "sas"; readonly query: string }
  | { readonly kind: "workload"; readonly tokenUrl: string; readonly clientId: string; readonly tokenPath: string }
  | { readonly kind: "secret"; readonly tokenUrl: string; readonly clientId: string; readonly clientSecret: string }
  | { readonly kind: "machine"; readonly endpoint: string; readonly clientId: string | null };

/** What goes with one request. */
export type AzureAuthorization = { readonly kind: "key"; readonly accountKey: string } | { readonly kind: "sas"; readonly query: string } | { readonly kind: "bearer"; readonly token: string };

const RESOURCE = "https://storage.azure.com/";
const INSTANCE_ENDPOINT = "http://169.254.169.254";
const AUTHORITY = "https://login.microsoftonline.com";

export function azureCredentialSource(environment: Environment): AzureCredentialSource {
  const { AZURE_STORAGE_ACCESS_KEY: accountKey, AZURE_STORAGE_SAS_TOKEN: sas, AZURE_TENANT_ID: tenantId, AZURE_CLIENT_ID: clientId } = environment;
  if (accountKey) return { kind: "key", accountKey };
  if (sas) return { kind: "sas", query: sas.replace(/^\?/, "") };
  const tokenUrl = `${(environment.AZURE_AUTHORITY_HOST || AUTHORITY).replace(/\/+$/, "")}/${encodeURIComponent(tenantId ?? "")}/oauth2/v2.0/token`;
  const { AZURE_FEDERATED_TOKEN_FILE: tokenPath, AZURE_CLIENT_SECRET: clientSecret } = environment;
  if (tenantId && clientId && tokenPath) return { kind: "workload", tokenUrl, clientId, tokenPath };
  if (tenantId && clientId && clientSecret) return { kind: "secret", tokenUrl, clientId, clientSecret };
  return { kind: "machine", endpoint: (environment.AZURE_POD_IDENTITY_AUTHORITY_HOST || INSTANCE_ENDPOINT).replace(/\/+$/, ""), clientId: clientId || null };
}

interface Token extends Expiring {
  readonly token: string;
}

/** To be asked for each request. */
export function azureCredentials(source: AzureCredentialSource, tools: SecretTools): () => Promise<AzureAuthorization> {
  if (source.kind === "key" || source.kind === "sas") return async () => source;
  const lent = new Refreshed<Token>(tools.platform.clock, () => lend(source, tools));
  return async () => ({ kind: "bearer", token: (await lent.get()).token });
}

async function lend(source: Exclude<AzureCredentialSource, { kind: "key" | "sas" }>, tools: SecretTools): Promise<Token> {
  const request = await tokenRequest(source, tools);
  const { access_token: token, expires_in: seconds } = secretFields(await askForSecret(request, tools), request.what, ["access_token", "expires_in"]);
  const lifeMs = Number(seconds) * 1000;
  if (!Number.isFinite(lifeMs)) throw storageUnavailable(`${request.what}: its time to live is no number`);
  return { token, expiresMs: tools.platform.clock.wallMs() + lifeMs };
}

async function tokenRequest(source: Exclude<AzureCredentialSource, { kind: "key" | "sas" }>, tools: SecretTools): Promise<SecretRequest> {
  const what = "a token for Azure storage";
  if (source.kind === "machine") {
    const query = new URLSearchParams({ "api-version": "2018-02-01", resource: RESOURCE, ...(source.clientId === null ? {} : { client_id: source.clientId }) });
    return { what, url: `${source.endpoint}/metadata/identity/oauth2/token?${query}`, headers: { metadata: "true" } };
  }
  const proof: Record<string, string> = source.kind === "secret" ? { client_secret: source.clientSecret } : { client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", client_assertion: await readSecretFile(tools, source.tokenPath) };
  return { what, url: source.tokenUrl, form: { grant_type: "client_credentials", client_id: source.clientId, scope: `${RESOURCE}.default`, ...proof } };
}
