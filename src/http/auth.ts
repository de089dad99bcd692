/**
 * Tokens and permissions, for every boundary (HTTP, libpq, gRPC).
 *
 * A token is a JWT signed with Ed25519 (`alg` EdDSA). Claims, as in the peer (libs/utils/src/auth.rs), and beyond it
 * `timeline_id`:
 *
 * | claim | meaning |
 * | --- | --- |
 * | `scope` | what the bearer is, one of `SCOPES` |
 * | `tenant_id` | with scope `tenant` and `tenantendpoint`: the only tenant it may touch |
 * | `timeline_id` | optional, with scope `tenant`: the only timeline it may touch |
 * | `endpoint_id` | with scope `tenantendpoint` |
 * | `exp`, `nbf` | optional, seconds since the epoch; 60 s of leeway |
 * | `aud` | optional; when present it must name our audience |
 *
 * `kid` in the header only says which key to try first. Whoever is refused learns no more than that: the reason is logged.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from "node:crypto";
import { z } from "zod";
import { StrataError } from "../kit/errors.ts";
import type { FileSystem } from "../platform/files.ts";

export const SCOPES = [
  "tenant",
  "tenantendpoint",
  "pageserverapi",
  "safekeeperdata",
  "generations_api",
  "admin",
  "infra",
  "scrubber",
  "controller_peer",
] as const;

export type Scope = (typeof SCOPES)[number];

const hexId = z.string().regex(/^[0-9a-fA-F]{32}$/).transform((text) => text.toLowerCase());

const claimsSchema = z.object({
  scope: z.enum(SCOPES),
  tenant_id: hexId.nullish(),
  timeline_id: hexId.nullish(),
  endpoint_id: z.string().max(64).nullish(),
  exp: z.number().nullish(),
  nbf: z.number().nullish(),
  aud: z.union([z.string(), z.array(z.string())]).nullish(),
});

const headerSchema = z.object({ alg: z.string(), kid: z.string().nullish() });

export interface Claims {
  readonly scope: Scope;
  readonly tenantId?: string;
  readonly timelineId?: string;
  readonly endpointId?: string;
}

/** Who may do something. There is no third kind: what is not declared is denied. */
export type Permission =
  | { readonly kind: "public" }
  | {
      readonly kind: "scope";
      readonly scopes: readonly Scope[];
      /** Path parameter that holds a tenant id or tenant shard id; required for `tenant` scopes to pass. */
      readonly tenantParam?: string;
      /** Path parameter that holds a timeline id; required for tokens bound to a timeline to pass. */
      readonly timelineParam?: string;
    };

/** What a request is about: the tenant and timeline it names, if it names them. */
export interface PermissionTarget {
  readonly tenantId?: string;
  readonly timelineId?: string;
}

const MAX_TOKEN_LENGTH = 8192;
const LEEWAY_MS = 60_000;

interface VerifyingKey {
  readonly kid: string;
  readonly key: KeyObject;
}

export interface JwtAuthOptions {
  /** Wall clock, milliseconds since the epoch. */
  readonly wallMs: () => number;
  /** The audience this role answers to; tokens with another `aud` are refused. */
  readonly audience?: string;
}

/** Verifies tokens against a set of public keys that can be replaced while running. */
export class JwtAuth {
  #keys: readonly VerifyingKey[] = [];
  readonly #options: JwtAuthOptions;
  #source: { readonly files: FileSystem; readonly path: string } | null = null;

  private constructor(options: JwtAuthOptions) {
    this.#options = options;
  }

  /** @param publicKeyPem an Ed25519 public key. @throws StrataError fix-input `bad-jwt-key` */
  static fromPem(publicKeyPem: string, options: JwtAuthOptions): JwtAuth {
    const auth = new JwtAuth(options);
    auth.#keys = [parseKey(publicKeyPem, { kid: "", where: "the given key" })];
    return auth;
  }

  /**
   * Keys from one PEM file, or from all files of a directory (a file's name without its suffix is its key id).
   * @throws StrataError fix-input `bad-jwt-key` when one is not an Ed25519 public key or there is none
   */
  static async load(files: FileSystem, path: string, options: JwtAuthOptions): Promise<JwtAuth> {
    const auth = new JwtAuth(options);
    auth.#source = { files, path };
    await auth.reload();
    return auth;
  }

  /** Reads the keys again; on an error the old ones stay. */
  async reload(): Promise<void> {
    if (this.#source !== null) this.#keys = await loadKeys(this.#source.files, this.#source.path);
  }

  /** @throws StrataError forbidden `bad-token`, as the peer answers a token it cannot verify with 403 */
  verify(token: string): Claims {
    const parts = token.length > MAX_TOKEN_LENGTH ? [] : token.split(".");
    if (parts.length !== 3) throw badToken("it is not a JWT");
    const header = headerSchema.safeParse(decodeJson(parts[0]));
    if (!header.success || header.data.alg !== "EdDSA") throw badToken("its algorithm is not EdDSA");
    const signed = Buffer.from(`${parts[0]}.${parts[1]}`);
    const signature = Buffer.from(parts[2], "base64url");
    const kid = header.data.kid;
    const ordered = kid ? [...this.#keys].sort((a, b) => Number(b.kid === kid) - Number(a.kid === kid)) : this.#keys;
    if (!ordered.some((candidate) => verify(null, signed, candidate.key, signature))) throw badToken("no key verifies its signature");
    return this.#checkClaims(decodeJson(parts[1]));
  }

  #checkClaims(payload: unknown): Claims {
    const parsed = claimsSchema.safeParse(payload);
    if (!parsed.success) throw badToken(`its claims are malformed: ${z.prettifyError(parsed.error)}`);
    const claims = parsed.data;
    const nowMs = this.#options.wallMs();
    if (claims.exp != null && claims.exp * 1000 + LEEWAY_MS < nowMs) throw badToken("it has expired");
    if (claims.nbf != null && claims.nbf * 1000 - LEEWAY_MS > nowMs) throw badToken("it is not valid yet");
    if (claims.aud != null) {
      const audiences = typeof claims.aud === "string" ? [claims.aud] : claims.aud;
      if (this.#options.audience === undefined || !audiences.includes(this.#options.audience)) throw badToken("it is for another audience");
    }
    return {
      scope: claims.scope,
      ...(claims.tenant_id ? { tenantId: claims.tenant_id } : {}),
      ...(claims.timeline_id ? { timelineId: claims.timeline_id } : {}),
      ...(claims.endpoint_id ? { endpointId: claims.endpoint_id } : {}),
    };
  }
}

/**
 * Decides whether a verified bearer may do what needs `permission` to `target`.
 * @throws StrataError forbidden `permission-denied`
 */
export function checkPermission(claims: Claims, permission: Permission, target: PermissionTarget = {}): void {
  if (permission.kind === "public") return;
  if (!permission.scopes.includes(claims.scope)) throw denied(`scope ${claims.scope} is not among ${permission.scopes.join(", ")}`);
  if (claims.scope === "tenant" || claims.scope === "tenantendpoint") {
    if (target.tenantId === undefined) throw denied("a tenant's token cannot do what is not about one tenant");
    if (claims.tenantId !== target.tenantId) throw denied("the token is another tenant's");
  }
  if (claims.timelineId !== undefined && claims.timelineId !== target.timelineId) throw denied("the token is bound to another timeline");
}

/** The token of an `Authorization: Bearer …` header. @throws StrataError unauthenticated `malformed-authorization` */
export function bearerToken(header: string): string {
  const match = /^Bearer (\S+)$/.exec(header);
  if (match === null) throw new StrataError("unauthenticated", "malformed-authorization", "malformed authorization header");
  return match[1];
}

export interface TokenOptions {
  readonly kid?: string;
  /** Seconds since the epoch. */
  readonly expiresAtSeconds?: number;
  readonly audience?: string;
}

/** Makes a token. @param privateKeyPem an Ed25519 private key */
export function signToken(claims: Claims, privateKeyPem: string, options: TokenOptions = {}): string {
  const header = { alg: "EdDSA", typ: "JWT", ...(options.kid === undefined ? {} : { kid: options.kid }) };
  const payload = {
    scope: claims.scope,
    tenant_id: claims.tenantId,
    timeline_id: claims.timelineId,
    endpoint_id: claims.endpointId,
    exp: options.expiresAtSeconds,
    aud: options.audience,
  };
  const signed = `${encodeJson(header)}.${encodeJson(payload)}`;
  return `${signed}.${sign(null, Buffer.from(signed), createPrivateKey(privateKeyPem)).toString("base64url")}`;
}

/** A fresh Ed25519 key pair in PEM. */
export function generateTokenKeys(): { readonly publicKeyPem: string; readonly privateKeyPem: string } {
  const pair = generateKeyPairSync("ed25519");
  return {
    publicKeyPem: pair.publicKey.export({ type: "spki", format: "pem" }).toString(),
    privateKeyPem: pair.privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
}

async function loadKeys(files: FileSystem, path: string): Promise<VerifyingKey[]> {
  const stat = await files.stat(path);
  if (!stat.isDirectory) return [await loadKey(files, path)];
  const keys: VerifyingKey[] = [];
  for (const name of await files.list(path)) {
    const file = `${path}/${name}`;
    if (!(await files.stat(file)).isDirectory) keys.push(await loadKey(files, file));
  }
  if (keys.length === 0) throw new StrataError("fix-input", "bad-jwt-key", `${path} holds no key, so every request would be refused`);
  return keys;
}

async function loadKey(files: FileSystem, path: string): Promise<VerifyingKey> {
  const pem = new TextDecoder().decode(await files.readFile(path));
  const name = path.slice(path.lastIndexOf("/") + 1);
  return parseKey(pem, { kid: name.replace(/\.[^.]*$/, ""), where: path });
}

function parseKey(pem: string, from: { kid: string; where: string }): VerifyingKey {
  try {
    const key = createPublicKey(pem);
    if (key.asymmetricKeyType !== "ed25519") throw new Error(`it is a key of type ${key.asymmetricKeyType}`);
    return { kid: from.kid, key };
  } catch (cause) {
    throw new StrataError("fix-input", "bad-jwt-key", `${from.where} is not an Ed25519 public key in PEM`, { cause });
  }
}

function decodeJson(part: string): unknown {
  try {
    return JSON.parse(Buffer.from(part, "base64url").toString("utf8"));
  } catch (cause) {
    throw badToken("it is not JSON inside", cause);
  }
}

function encodeJson(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}

function badToken(why: string, cause?: unknown): StrataError {
  return new StrataError("forbidden", "bad-token", `token refused: ${why}`, { cause });
}

function denied(why: string): StrataError {
  return new StrataError("forbidden", "permission-denied", `permission denied: ${why}`);
}
