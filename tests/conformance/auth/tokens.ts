/** Tokens good and bad, for every boundary that takes one. */
import { createHmac, sign } from "node:crypto";
import { type Claims, generateTokenKeys, signToken } from "../../../src/http/auth.ts";

export const TENANT = "3d1f7595b468230304e0b73cecbcb081";
export const OTHER_TENANT = "00000000000000000000000000000001";
export const TIMELINE = "11223344556677881122334455667788";
export const OTHER_TIMELINE = "00000000000000000000000000000002";

export const KEYS = generateTokenKeys();
const FOREIGN = generateTokenKeys();
const HOUR_SECONDS = 3600;

export function token(claims: Claims): string {
  return signToken(claims, KEYS.privateKeyPem);
}

function nowSeconds(): number {
  return Math.floor(Date.now() / 1000);
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

/** Header and claims of our own choice, rightly signed. */
function signed(header: unknown, claims: unknown): string {
  const text = `${encode(header)}.${encode(claims)}`;
  return `${text}.${sign(null, Buffer.from(text), KEYS.privateKeyPem).toString("base64url")}`;
}

/** None of them may pass anywhere, although each says `claims`, which would. */
export function badTokens(claims: Claims): Readonly<Record<string, string>> {
  const good = signToken(claims, KEYS.privateKeyPem);
  const [header, payload, signature] = good.split(".");
  const raw = { scope: claims.scope, tenant_id: claims.tenantId };
  const hmacText = `${encode({ alg: "HS256", typ: "JWT" })}.${payload}`;
  const eddsa = { alg: "EdDSA", typ: "JWT" };
  return {
    "not a token": "abc",
    "two parts": `${header}.${payload}`,
    "not JSON inside": "!!!.???.###",
    "too long": `${header}.${payload}.${"A".repeat(10_000)}`,
    "of another key": signToken(claims, FOREIGN.privateKeyPem),
    "of another key, its id ours": signToken(claims, FOREIGN.privateKeyPem, { kid: "key" }),
    "expired": signToken(claims, KEYS.privateKeyPem, { expiresAtSeconds: nowSeconds() - HOUR_SECONDS }),
    "not valid yet": signed(eddsa, { ...raw, nbf: nowSeconds() + HOUR_SECONDS }),
    "for another audience": signToken(claims, KEYS.privateKeyPem, { audience: "somebody else" }),
    "unsigned": `${encode({ alg: "none" })}.${payload}.`,
    "its key taken for a shared secret": `${hmacText}.${createHmac("sha256", KEYS.publicKeyPem).update(hmacText).digest("base64url")}`,
    "of another algorithm, it says": signed({ alg: "HS256", typ: "JWT" }, raw),
    "its claims changed": `${header}.${encode({ ...raw, scope: "admin", exp: null })}.${signature}`,
    "of an unknown scope": signed(eddsa, { ...raw, scope: "everything" }),
    "without a scope": signed(eddsa, { tenant_id: TENANT }),
    "with a malformed tenant": signed(eddsa, { ...raw, tenant_id: "x" }),
    "that never ends, they say": signed(eddsa, { ...raw, exp: "never" }),
  };
}
