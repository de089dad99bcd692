/**
 * Answers to a server's authentication request: cleartext, md5 and SCRAM-SHA-256 (without channel binding).
 *
 * Source: RFC 5802 and 7677; PostgreSQL src/common/md5_common.c (pg_md5_encrypt), src/common/scram-common.c.
 */
import { createHash, createHmac, pbkdf2Sync, timingSafeEqual } from "node:crypto";
import type { ByteReader} from "../kit/bytes.ts";
import { utf8, utf8ToString } from "../kit/bytes.ts";
import { StrataError } from "../kit/errors.ts";

const SCRAM_MECHANISM = "SCRAM-SHA-256";
/** A server could ask for hours of hashing; PostgreSQL's default is 4096. */
const SCRAM_MAX_ITERATIONS = 1_000_000;
const GS2_HEADER = "n,,";

/** `md5` + md5(md5(password + user) + salt), all in hex. */
export function md5Password(credentials: { user: string; password: string }, salt: Uint8Array): string {
  const inner = createHash("md5").update(credentials.password + credentials.user, "utf8").digest("hex");
  return `md5${createHash("md5").update(inner, "utf8").update(salt).digest("hex")}`;
}

/** One SCRAM conversation: `first`, then `next` for each of the server's two messages. */
export class ScramClient {
  readonly #password: string;
  readonly #nonce: string;
  readonly #firstBare: string;
  #serverSignature: Uint8Array | null = null;
  #verified = false;

  /** @param nonceBytes at least 18 random bytes */
  constructor(password: string, nonceBytes: Uint8Array) {
    this.#password = password.normalize("NFKC");
    this.#nonce = Buffer.from(nonceBytes).toString("base64").replaceAll(",", "");
    this.#firstBare = `n=,r=${this.#nonce}`;
  }

  get mechanism(): string {
    return SCRAM_MECHANISM;
  }

  /** Whether the server has proved that it knows the password too. */
  get verified(): boolean {
    return this.#verified;
  }

  first(): Uint8Array {
    return utf8(GS2_HEADER + this.#firstBare);
  }

  /** client-final-message for the server's first message. @throws StrataError unauthenticated `scram-failed` */
  final(serverFirst: Uint8Array): Uint8Array {
    const text = utf8ToString(serverFirst);
    const match = /^r=([^,]+),s=([A-Za-z0-9+/=]+),i=(\d{1,9})(?:,|$)/.exec(text);
    if (match === null) throw scramFailed("malformed server-first-message");
    const [, nonce, saltBase64, iterationsText] = match;
    const iterations = Number(iterationsText);
    if (!nonce.startsWith(this.#nonce) || nonce.length === this.#nonce.length) throw scramFailed("the server's nonce does not extend ours");
    if (iterations < 1 || iterations > SCRAM_MAX_ITERATIONS) throw scramFailed(`${iterations} iterations asked for`);
    const salted = pbkdf2Sync(this.#password, Buffer.from(saltBase64, "base64"), iterations, 32, "sha256");
    const clientKey = hmac(salted, "Client Key");
    const storedKey = createHash("sha256").update(clientKey).digest();
    const withoutProof = `c=${Buffer.from(GS2_HEADER).toString("base64")},r=${nonce}`;
    const authMessage = `${this.#firstBare},${text},${withoutProof}`;
    const signature = hmac(storedKey, authMessage);
    const proof = clientKey.map((byte, at) => byte ^ signature[at]);
    this.#serverSignature = hmac(hmac(salted, "Server Key"), authMessage);
    return utf8(`${withoutProof},p=${Buffer.from(proof).toString("base64")}`);
  }

  /** Checks the server's last message. @throws StrataError unauthenticated `scram-failed` */
  verify(serverFinal: Uint8Array): void {
    const match = /^v=([A-Za-z0-9+/=]+)/.exec(utf8ToString(serverFinal));
    const signature = match === null ? null : Buffer.from(match[1], "base64");
    const expected = this.#serverSignature;
    if (signature === null || expected === null || signature.length !== expected.length || !timingSafeEqual(signature, expected)) {
      throw scramFailed("the server did not prove that it knows the password");
    }
    this.#verified = true;
  }
}

/** The mechanisms of an AuthenticationSASL body, behind its kind. @throws StrataError fix-input `not-supported` without ours */
export function checkMechanisms(reader: ByteReader): void {
  const offered: string[] = [];
  while (reader.remaining > 0) {
    const name = reader.cstring();
    if (name === "") break;
    offered.push(name);
  }
  if (!offered.includes(SCRAM_MECHANISM)) {
    throw new StrataError("fix-input", "not-supported", `the server offers ${offered.join(", ") || "no SASL mechanism"}; ${SCRAM_MECHANISM} is needed`);
  }
}

function hmac(key: Uint8Array, text: string): Uint8Array {
  return createHmac("sha256", key).update(text, "utf8").digest();
}

function scramFailed(why: string): StrataError {
  return new StrataError("unauthenticated", "scram-failed", `SCRAM authentication failed: ${why}`);
}
