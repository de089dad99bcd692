import { expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, rmSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Claims, checkPermission, generateTokenKeys, JwtAuth, type Permission, SCOPES, signToken } from "../../src/http/auth.ts";
import { isStrataError } from "../../src/kit/errors.ts";
import { RealFiles } from "../../src/platform/real/files.ts";

const TENANT = "3d1f7595b468230304e0b73cecbcb081";
const OTHER = "00000000000000000000000000000001";
const NOW_MS = 1_800_000_000_000;
const keys = generateTokenKeys();
const auth = JwtAuth.fromPem(keys.publicKeyPem, { wallMs: () => NOW_MS, audience: "storage" });

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (isStrataError(error)) return error.code;
    throw error;
  }
  return "passed";
}

test("a token made elsewhere with extra claims is read", () => {
  // Key and token of the peer's libs/utils/src/auth.rs tests: made with openssl and another JWT library.
  const foreign = JwtAuth.fromPem("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEARYwaNBayR+eGI0iXB4s3QxE3Nl2g1iWbr6KtLWeVD/w=\n-----END PUBLIC KEY-----\n", { wallMs: () => NOW_MS });
  const token =
    "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJzY29wZSI6InRlbmFudCIsInRlbmFudF9pZCI6IjNkMWY3NTk1YjQ2ODIzMDMwNGUwYjczY2VjYmNiMDgxIiwiaXNzIjoibmVvbi5jb250cm9scGxhbmUiLCJpYXQiOjE2Nzg0NDI0Nzl9.rNheBnluMJNgXzSTTJoTNIGy4P_qe0JUHl_nVEGuDCTgHOThPVr552EnmKccrCKquPeW3c2YUk0Y9Oh4KyASAw";
  expect(foreign.verify(token)).toEqual({ scope: "tenant", tenantId: TENANT });
});

test("what was signed is what is read, for every scope", () => {
  for (const scope of SCOPES) expect(auth.verify(signToken({ scope, tenantId: TENANT }, keys.privateKeyPem))).toEqual({ scope, tenantId: TENANT });
});

test("every changed byte of a token is refused", () => {
  const token = signToken({ scope: "admin" }, keys.privateKeyPem);
  const lastOfSignature = token.length - 1;
  for (let at = 0; at < token.length; at++) {
    // The last character of the signature holds padding bits that do not count.
    if (at === lastOfSignature) continue;
    const changed = token.slice(0, at) + (token[at] === "A" ? "B" : "A") + token.slice(at + 1);
    expect(codeOf(() => auth.verify(changed))).toBe("bad-token");
  }
});

test("expiry, not-before and audience", () => {
  const at = (seconds: number) => signToken({ scope: "admin" }, keys.privateKeyPem, { expiresAtSeconds: NOW_MS / 1000 + seconds });
  expect(codeOf(() => auth.verify(at(10)))).toBe("passed");
  expect(codeOf(() => auth.verify(at(-59)))).toBe("passed");
  expect(codeOf(() => auth.verify(at(-61)))).toBe("bad-token");
  const forAudience = (audience: string) => signToken({ scope: "admin" }, keys.privateKeyPem, { audience });
  expect(codeOf(() => auth.verify(forAudience("storage")))).toBe("passed");
  expect(codeOf(() => auth.verify(forAudience("elsewhere")))).toBe("bad-token");
  const noAudience = JwtAuth.fromPem(keys.publicKeyPem, { wallMs: () => NOW_MS });
  expect(codeOf(() => noAudience.verify(forAudience("storage")))).toBe("bad-token");
});

test("unsigned, differently signed and malformed tokens are refused", () => {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  expect(codeOf(() => auth.verify(`${part({ alg: "none" })}.${part({ scope: "admin" })}.`))).toBe("bad-token");
  expect(codeOf(() => auth.verify(signToken({ scope: "admin" }, generateTokenKeys().privateKeyPem)))).toBe("bad-token");
  expect(codeOf(() => auth.verify(signToken({ scope: "root" } as unknown as Claims, keys.privateKeyPem)))).toBe("bad-token");
  expect(codeOf(() => auth.verify(signToken({ scope: "tenant", tenantId: "x" }, keys.privateKeyPem)))).toBe("bad-token");
  for (const token of ["", ".", "..", "a.b.c", "x".repeat(100_000)]) expect(codeOf(() => auth.verify(token))).toBe("bad-token");
});

test("keys are reloaded from a directory; a bad one leaves the old keys in force", async () => {
  const directory = mkdtempSync(join(tmpdir(), "strata-keys-"));
  try {
    const next = generateTokenKeys();
    writeFileSync(join(directory, "one.pem"), keys.publicKeyPem);
    const rotating = await JwtAuth.load(new RealFiles(), directory, { wallMs: () => NOW_MS });
    const old = signToken({ scope: "admin" }, keys.privateKeyPem, { kid: "one" });
    const fresh = signToken({ scope: "admin" }, next.privateKeyPem, { kid: "two" });
    expect(codeOf(() => rotating.verify(fresh))).toBe("bad-token");
    writeFileSync(join(directory, "two.pem"), next.publicKeyPem);
    await rotating.reload();
    expect(codeOf(() => rotating.verify(fresh))).toBe("passed");
    expect(codeOf(() => rotating.verify(old))).toBe("passed");
    unlinkSync(join(directory, "one.pem"));
    await rotating.reload();
    expect(codeOf(() => rotating.verify(old))).toBe("bad-token");
    writeFileSync(join(directory, "three.pem"), generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey.export({ type: "spki", format: "pem" }));
    await expect(rotating.reload()).rejects.toThrow("not an Ed25519 public key");
    expect(codeOf(() => rotating.verify(fresh))).toBe("passed");
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("permissions: every scope against every target", () => {
  const permission: Permission = { kind: "scope", scopes: ["tenant", "pageserverapi"], tenantParam: "t" };
  for (const scope of SCOPES) {
    const check = (tenantId: string | undefined) => codeOf(() => checkPermission({ scope, tenantId: TENANT }, permission, tenantId === undefined ? {} : { tenantId }));
    const own = scope === "tenant" || scope === "pageserverapi";
    expect([scope, check(TENANT), check(OTHER), check(undefined)]).toEqual([
      scope,
      own ? "passed" : "permission-denied",
      scope === "pageserverapi" ? "passed" : "permission-denied",
      scope === "pageserverapi" ? "passed" : "permission-denied",
    ]);
  }
  expect(codeOf(() => checkPermission({ scope: "tenant" }, permission, { tenantId: TENANT }))).toBe("permission-denied");
  const bound: Claims = { scope: "tenant", tenantId: TENANT, timelineId: OTHER };
  expect(codeOf(() => checkPermission(bound, permission, { tenantId: TENANT }))).toBe("permission-denied");
  expect(codeOf(() => checkPermission(bound, permission, { tenantId: TENANT, timelineId: TENANT }))).toBe("permission-denied");
  expect(codeOf(() => checkPermission(bound, permission, { tenantId: TENANT, timelineId: OTHER }))).toBe("passed");
});
