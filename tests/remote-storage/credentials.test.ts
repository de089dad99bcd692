/** Each way to credentials against a server that answers as the vendors document; they are asked for in time, once for all, and never told in errors. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { awsCredentials, awsCredentialSource } from "../../src/remote-storage/credentials/aws.ts";
import { AzureStorage } from "../../src/remote-storage/azure.ts";
import { type AzureAuthorization, azureCredentials, azureCredentialSource } from "../../src/remote-storage/credentials/azure.ts";
import { Refreshed } from "../../src/remote-storage/credentials/refreshed.ts";
import type { SecretTools } from "../../src/remote-storage/credentials/secret-request.ts";

const directory = mkdtempSync(join(tmpdir(), "strata-credentials-"));
const tokenPath = join(directory, "token");
const tools: SecretTools = { platform: realPlatform(), fetch: (url, init) => fetch(url, init as RequestInit) };
const asked: { path: string; headers: Record<string, string>; body: string }[] = [];
let answers: (path: string, method: string) => Response = () => new Response("", { status: 404 });
let server: ReturnType<typeof Bun.serve>;
let base = "";

beforeAll(() => {
  writeFileSync(tokenPath, "file-token\n");
  server = Bun.serve({
    port: 0, hostname: "127.0.0.1",
    fetch: async (request) => {
      const { pathname, search } = new URL(request.url);
      asked.push({ path: pathname + search, headers: Object.fromEntries(request.headers), body: await request.text() });
      return answers(pathname, request.method);
    },
  });
  base = `http://127.0.0.1:${server.port}`;
});
beforeEach(() => void asked.splice(0));
afterAll(() => {
  server.stop(true);
  rmSync(directory, { recursive: true });
});

const soon = (ms: number): string => new Date(Date.now() + ms).toISOString();
const json = (lifeMs: number) => Response.json({ Code: "Success", AccessKeyId: "AK", SecretAccessKey: "SK", Token: "ST", Expiration: soon(lifeMs) });
const LENT = { accessKeyId: "AK", secretAccessKey: "SK", sessionToken: "ST" };

function aws(environment: Record<string, string>): () => Promise<unknown> {
  const source = awsCredentialSource(environment, "eu-west-1");
  if (source === null) throw new Error("no source");
  return awsCredentials(source, tools);
}

describe("AWS", () => {
  test("the order in which the environment is read", () => {
    const kind = (environment: Record<string, string>) => awsCredentialSource(environment, "r")?.kind;
    const all = { AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "b", AWS_PROFILE: "p", AWS_WEB_IDENTITY_TOKEN_FILE: "f", AWS_ROLE_ARN: "r", AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: "/c" };
    expect(kind(all)).toBe("keys");
    expect(kind({ ...all, AWS_ACCESS_KEY_ID: "" })).toBe("profile");
    expect(kind({ ...all, AWS_ACCESS_KEY_ID: "", AWS_PROFILE: "" })).toBe("web-identity");
    expect(kind({ AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: "/c" })).toBe("container");
    expect(kind({})).toBe("instance");
    expect(kind({ AWS_EC2_METADATA_DISABLED: "true" })).toBeUndefined();
    expect(awsCredentialSource({ AWS_WEB_IDENTITY_TOKEN_FILE: "f", AWS_ROLE_ARN: "r" }, "eu-west-1")).toMatchObject({ stsEndpoint: "https://sts.eu-west-1.amazonaws.com" });
    expect(awsCredentialSource({ AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: "/v2/x" }, "r")).toMatchObject({ url: "http://169.254.170.2/v2/x" });
  });

  test("a profile in a file", async () => {
    const path = join(directory, "credentials");
    writeFileSync(path, "[default]\naws_access_key_id = D\naws_secret_access_key=E\n\n[ other ]\n# not this\naws_access_key_id = AK\naws_secret_access_key = SK\naws_session_token = ST\n");
    expect(await aws({ AWS_SHARED_CREDENTIALS_FILE: path })()).toMatchObject({ accessKeyId: "D", secretAccessKey: "E" });
    expect(await aws({ AWS_SHARED_CREDENTIALS_FILE: path, AWS_PROFILE: "other" })()).toMatchObject(LENT);
    await expect(aws({ AWS_SHARED_CREDENTIALS_FILE: path, AWS_PROFILE: "none" })()).rejects.toMatchObject({ kind: "unavailable", code: "storage-unavailable" });
  });

  test("a pod's service account, at STS", async () => {
    answers = () => new Response(`<AssumeRoleWithWebIdentityResponse><Credentials><SessionToken>ST</SessionToken><SecretAccessKey>SK</SecretAccessKey><Expiration>${soon(3_600_000)}</Expiration><AccessKeyId>AK</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResponse>`);
    const credentials = aws({ AWS_WEB_IDENTITY_TOKEN_FILE: tokenPath, AWS_ROLE_ARN: "arn:aws:iam::1:role/x", AWS_ENDPOINT_URL_STS: base });
    const together = await Promise.all(Array.from({ length: 20 }, credentials));
    expect(together.every((one) => Bun.deepEquals(one, together[0]))).toBe(true);
    expect(together[0]).toMatchObject(LENT);
    expect(asked.map(({ path }) => path)).toEqual(["/"]);
    expect(Object.fromEntries(new URLSearchParams(asked[0].body))).toEqual({ Action: "AssumeRoleWithWebIdentity", Version: "2011-06-15", RoleArn: "arn:aws:iam::1:role/x", RoleSessionName: "strata", WebIdentityToken: "file-token" });
  });

  test("a container's, and a machine's with a session", async () => {
    answers = () => json(3_600_000);
    expect(await aws({ AWS_CONTAINER_CREDENTIALS_FULL_URI: `${base}/v1/credentials`, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: tokenPath })()).toMatchObject(LENT);
    expect([asked[0].path, asked[0].headers.authorization]).toEqual(["/v1/credentials", "file-token"]);
    asked.splice(0);
    answers = (path, method) => {
      if (path === "/latest/api/token") return method === "PUT" ? new Response("session") : new Response("", { status: 405 });
      return path.endsWith("/security-credentials/") ? new Response("my-role\n") : json(3_600_000);
    };
    expect(await aws({ AWS_EC2_METADATA_SERVICE_ENDPOINT: base })()).toMatchObject(LENT);
    expect(asked.map(({ path }) => path)).toEqual(["/latest/api/token", "/latest/meta-data/iam/security-credentials/", "/latest/meta-data/iam/security-credentials/my-role"]);
    expect(asked.slice(1).map(({ headers }) => headers["x-aws-ec2-metadata-token"])).toEqual(["session", "session"]);
  });

  test("what answers otherwise is no bug, and its words are in no error", async () => {
    const credentials = aws({ AWS_CONTAINER_CREDENTIALS_FULL_URI: `${base}/v1/credentials` });
    for (const answer of [() => new Response("SECRET", { status: 500 }), () => new Response("SECRET"), () => new Response("{}"), () => new Response("null"), () => new Response(JSON.stringify({ AccessKeyId: "SECRET" })), () => Response.json({ AccessKeyId: "a", SecretAccessKey: "SECRET", Token: "t", Expiration: "never" }), () => new Response("SECRET".repeat(50_000)), () => Response.redirect(`${base}/elsewhere`, 302)]) {
      answers = answer;
      const error = (await credentials().catch((reason: unknown) => reason)) as Error;
      expect(error).toMatchObject({ kind: "unavailable", code: "storage-unavailable" });
      expect(`${error.message} ${String(error.cause)}`).not.toContain("SECRET");
    }
    expect(asked.every(({ path }) => path !== "/elsewhere")).toBe(true);
    answers = () => json(3_600_000);
    expect(await credentials()).toMatchObject(LENT);
  });
});

describe("what is lent", () => {
  test("is asked for again five minutes before its end; what is good still is used while nobody answers; then the error is told", async () => {
    let nowMs = 0;
    let calls = 0;
    let fails = false;
    const lent = new Refreshed({ wallMs: () => nowMs } as SecretTools["platform"]["clock"], async () => {
      calls++;
      if (fails) throw new Error("away");
      return { number: calls, expiresMs: nowMs + 3_600_000 };
    });
    expect((await lent.get()).number).toBe(1);
    nowMs = 3_600_000 - 300_001;
    expect((await lent.get()).number).toBe(1);
    nowMs += 2;
    expect((await lent.get()).number).toBe(2);
    nowMs += 3_600_000 - 200_000;
    fails = true;
    expect((await lent.get()).number).toBe(2);
    nowMs += 200_000;
    await expect(lent.get()).rejects.toThrow("away");
    fails = false;
    expect((await lent.get()).number).toBe(5);
  });
});

describe("Azure", () => {
  const ids = { AZURE_TENANT_ID: "tenant", AZURE_CLIENT_ID: "client" };
  const azure = (environment: Record<string, string>) => azureCredentials(azureCredentialSource(environment), tools);

  test("the order in which the environment is read", async () => {
    expect(await azure({ AZURE_STORAGE_ACCESS_KEY: "k", AZURE_STORAGE_SAS_TOKEN: "?s" })()).toEqual({ kind: "key", accountKey: "k" });
    expect(await azure({ AZURE_STORAGE_SAS_TOKEN: "?sv=1&sig=2", ...ids })()).toEqual({ kind: "sas", query: "sv=1&sig=2" });
    expect(azureCredentialSource({ ...ids, AZURE_FEDERATED_TOKEN_FILE: "f", AZURE_CLIENT_SECRET: "s" })).toMatchObject({ kind: "workload", tokenUrl: "https://login.microsoftonline.com/tenant/oauth2/v2.0/token" });
    expect(azureCredentialSource({ ...ids, AZURE_CLIENT_SECRET: "s" }).kind).toBe("secret");
    expect(azureCredentialSource(ids)).toEqual({ kind: "machine", endpoint: "http://169.254.169.254", clientId: "client" });
  });

  test("a request shows the token, or carries the signature in its address and that of a copy's source", async () => {
    const seen: [string, string | null, string | null][] = [];
    const storage = (right: AzureAuthorization) =>
      new AzureStorage({
        endpoint: "http://x", account: "a", container: "c", authorization: async () => right, platform: tools.platform,
        fetch: async (url, { headers }) => (seen.push([url, headers.get("authorization"), headers.get("x-ms-copy-source")]), new Response("", { status: 201, headers: { "x-ms-copy-status": "success" } })),
      });
    for (const right of [{ kind: "bearer", token: "T" }, { kind: "sas", query: "sig=1" }] as const) await storage(right).copy("k", "l");
    expect(seen).toEqual([["http://x/c/l", "Bearer T", "http://x/c/k"], ["http://x/c/l?sig=1", null, "http://x/c/k?sig=1"]]);
  });

  test("tokens for a workload, a password and a machine", async () => {
    answers = () => Response.json({ token_type: "Bearer", expires_in: 3600, access_token: "T" });
    const bearer = { kind: "bearer", token: "T" } as const;
    expect(await azure({ ...ids, AZURE_FEDERATED_TOKEN_FILE: tokenPath, AZURE_AUTHORITY_HOST: `${base}/` })()).toEqual(bearer);
    expect(asked[0].path).toBe("/tenant/oauth2/v2.0/token");
    expect(Object.fromEntries(new URLSearchParams(asked[0].body))).toEqual({ grant_type: "client_credentials", client_id: "client", scope: "https://storage.azure.com/.default", client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", client_assertion: "file-token" });
    expect(await azure({ ...ids, AZURE_CLIENT_SECRET: "s&=", AZURE_AUTHORITY_HOST: base })()).toEqual(bearer);
    expect(new URLSearchParams(asked[1].body).get("client_secret")).toBe("s&=");
    answers = () => Response.json({ expires_in: "3599", access_token: "T" });
    const machine = azure({ AZURE_POD_IDENTITY_AUTHORITY_HOST: base });
    expect([await machine(), await machine()]).toEqual([bearer, bearer]);
    expect(asked.slice(2).map(({ path, headers }) => [path, headers.metadata])).toEqual([["/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fstorage.azure.com%2F", "true"]]);
  });
});
