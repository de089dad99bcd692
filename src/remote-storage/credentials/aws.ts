/**
 * Where S3's credentials come from, in the order of AWS's own tools; the first whose names are in the environment is used.
 *
 * | kind | said by |
 * | --- | --- |
 * | keys | AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN |
 * | profile | AWS_PROFILE or AWS_SHARED_CREDENTIALS_FILE: keys in an INI file, ~/.aws/credentials unless named |
 * | web-identity | AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN, AWS_ROLE_SESSION_NAME: a pod's service account, exchanged at STS |
 * | container | AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI, AWS_CONTAINER_AUTHORIZATION_TOKEN or _TOKEN_FILE |
 * | instance | nothing: the machine's role, unless AWS_EC2_METADATA_DISABLED is true |
 *
 * Source: AWS SDKs and Tools reference guide, "Standardized credential providers"; EC2 user guide, "Instance metadata" (version 2);
 * STS API reference (AssumeRoleWithWebIdentity).
 */
import { storageUnavailable } from "../remote-storage.ts";
import type { S3Credentials } from "../s3.ts";
import { xmlText } from "../xml.ts";
import type { Environment } from "./environment.ts";
import { type Expiring, Refreshed } from "./refreshed.ts";
import { askForSecret, expiry, readSecretFile, secretFields, type SecretTools } from "./secret-request.ts";

export type AwsCredentialSource =
  | ({ readonly kind: "keys" } & S3Credentials)
  | { readonly kind: "profile"; readonly path: string; readonly profile: string }
  | { readonly kind: "web-identity"; readonly tokenPath: string; readonly roleArn: string; readonly sessionName: string; readonly stsEndpoint: string }
  | { readonly kind: "container"; readonly url: string; readonly token: string | null; readonly tokenPath: string | null }
  | { readonly kind: "instance"; readonly endpoint: string };

const CONTAINER_HOST = "http://169.254.170.2";
const INSTANCE_ENDPOINT = "http://169.254.169.254";
const INSTANCE_TOKEN_SECONDS = 21_600;

/** Null when nothing is said, and the machine is not to be asked. */
export function awsCredentialSource(environment: Environment, region: string): AwsCredentialSource | null {
  const { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey, AWS_SESSION_TOKEN: sessionToken } = environment;
  if (accessKeyId && secretAccessKey) return { kind: "keys", accessKeyId, secretAccessKey, ...(sessionToken ? { sessionToken } : {}) };
  const { AWS_PROFILE: profile, AWS_SHARED_CREDENTIALS_FILE: path, HOME: home = "/root" } = environment;
  if (profile || path) return { kind: "profile", path: path || `${home}/.aws/credentials`, profile: profile || "default" };
  const { AWS_WEB_IDENTITY_TOKEN_FILE: tokenPath, AWS_ROLE_ARN: roleArn, AWS_ROLE_SESSION_NAME: sessionName = "strata" } = environment;
  if (tokenPath && roleArn) return { kind: "web-identity", tokenPath, roleArn, sessionName, stsEndpoint: (environment.AWS_ENDPOINT_URL_STS ?? `https://sts.${region}.amazonaws.com`).replace(/\/+$/, "") };
  const { AWS_CONTAINER_CREDENTIALS_FULL_URI: full, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: relative } = environment;
  const url = full || (relative ? `${CONTAINER_HOST}${relative}` : "");
  if (url !== "") return { kind: "container", url, token: environment.AWS_CONTAINER_AUTHORIZATION_TOKEN ?? null, tokenPath: environment.AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE ?? null };
  if (environment.AWS_EC2_METADATA_DISABLED?.toLowerCase() === "true") return null;
  return { kind: "instance", endpoint: (environment.AWS_EC2_METADATA_SERVICE_ENDPOINT || INSTANCE_ENDPOINT).replace(/\/+$/, "") };
}

type Lent = S3Credentials & Expiring;

/** To be asked for each request: what is lent for a while is asked for again before its end. */
export function awsCredentials(source: AwsCredentialSource, tools: SecretTools): () => Promise<S3Credentials> {
  if (source.kind === "keys") return async () => source;
  const lent = new Refreshed<Lent>(tools.platform.clock, () => lend(source, tools));
  return () => lent.get();
}

function lend(source: Exclude<AwsCredentialSource, { kind: "keys" }>, tools: SecretTools): Promise<Lent> {
  switch (source.kind) {
    case "profile":
      return ofProfile(source, tools);
    case "web-identity":
      return byWebIdentity(source, tools);
    case "container":
      return ofContainer(source, tools);
    case "instance":
      return ofInstance(source.endpoint, tools);
  }
}

async function ofProfile({ path, profile }: { readonly path: string; readonly profile: string }, tools: SecretTools): Promise<Lent> {
  const found = new Map<string, string>();
  let section = "";
  for (const line of (await readSecretFile(tools, path)).split("\n")) {
    const header = /^\s*\[\s*(?:profile\s+)?([^\]]+?)\s*\]/.exec(line);
    const setting = /^\s*([\w-]+)\s*=\s*(.*?)\s*$/.exec(line);
    if (header !== null) section = header[1];
    else if (setting !== null && section === profile) found.set(setting[1].toLowerCase(), setting[2]);
  }
  const accessKeyId = found.get("aws_access_key_id");
  const secretAccessKey = found.get("aws_secret_access_key");
  const sessionToken = found.get("aws_session_token");
  if (!accessKeyId || !secretAccessKey) throw storageUnavailable(`${path} has no keys for profile "${profile}"`);
  // Read again now and then: other programs write such files.
  return { accessKeyId, secretAccessKey, ...(sessionToken ? { sessionToken } : {}), expiresMs: tools.platform.clock.wallMs() + 10 * 60_000 };
}

async function byWebIdentity(source: Extract<AwsCredentialSource, { kind: "web-identity" }>, tools: SecretTools): Promise<Lent> {
  const what = `credentials of ${source.roleArn}`;
  const form = { Action: "AssumeRoleWithWebIdentity", Version: "2011-06-15", RoleArn: source.roleArn, RoleSessionName: source.sessionName, WebIdentityToken: await readSecretFile(tools, source.tokenPath) };
  const text = await askForSecret({ what, url: `${source.stsEndpoint}/`, form }, tools);
  const field = (tag: string): string => {
    const value = xmlText(text, tag);
    if (!value) throw storageUnavailable(`${what}: no ${tag} in the answer`);
    return value;
  };
  return { accessKeyId: field("AccessKeyId"), secretAccessKey: field("SecretAccessKey"), sessionToken: field("SessionToken"), expiresMs: expiry(field("Expiration"), what) };
}

async function ofContainer({ url, token, tokenPath }: Extract<AwsCredentialSource, { kind: "container" }>, tools: SecretTools): Promise<Lent> {
  const authorization = tokenPath === null ? token : await readSecretFile(tools, tokenPath);
  const what = "credentials of the container";
  return fromJson(await askForSecret({ what, url, ...(authorization === null ? {} : { headers: { authorization } }) }, tools), what);
}

async function ofInstance(endpoint: string, tools: SecretTools): Promise<Lent> {
  const what = "credentials of the machine's role";
  const session = await askForSecret({ what, url: `${endpoint}/latest/api/token`, method: "PUT", headers: { "x-aws-ec2-metadata-token-ttl-seconds": String(INSTANCE_TOKEN_SECONDS) } }, tools);
  const headers = { "x-aws-ec2-metadata-token": session };
  const base = `${endpoint}/latest/meta-data/iam/security-credentials/`;
  const [role] = (await askForSecret({ what, url: base, headers }, tools)).split("\n");
  return fromJson(await askForSecret({ what, url: base + encodeURIComponent(role.trim()), headers }, tools), what);
}

function fromJson(json: string, what: string): Lent {
  const { AccessKeyId, SecretAccessKey, Token, Expiration } = secretFields(json, what, ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"]);
  return { accessKeyId: AccessKeyId, secretAccessKey: SecretAccessKey, sessionToken: Token, expiresMs: expiry(Expiration, what) };
}
