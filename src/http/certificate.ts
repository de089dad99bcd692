/**
 * A server's certificate with its key, from two PEM files that may be replaced while it is in use. Checked before it is used: a
 * certificate and a key that do not belong together, as in the middle of a replacement, are refused and the old ones stay.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { utf8ToString } from "../kit/bytes.ts";
import { StrataError } from "../kit/errors.ts";
import type { FileSystem } from "../platform/files.ts";
import type { TlsServerOptions } from "../platform/network.ts";

export interface CertificateFiles {
  readonly certPath: string;
  readonly keyPath: string;
}

export class Certificate {
  readonly #files: FileSystem;
  readonly #paths: CertificateFiles;
  #current: TlsServerOptions;
  #expiresMs: number;
  readonly #listeners = new Set<(tls: TlsServerOptions) => Promise<void> | void>();

  private constructor(files: FileSystem, paths: CertificateFiles, loaded: Loaded) {
    this.#files = files;
    this.#paths = paths;
    this.#current = loaded.tls;
    this.#expiresMs = loaded.expiresMs;
  }

  /** @throws StrataError fix-input `bad-certificate`; what reading the files throws */
  static async load(files: FileSystem, paths: CertificateFiles): Promise<Certificate> {
    return new Certificate(files, paths, await load(files, paths));
  }

  get current(): TlsServerOptions {
    return this.#current;
  }

  /** Milliseconds since the epoch. */
  get expiresMs(): number {
    return this.#expiresMs;
  }

  /** Calls `listener` with each new certificate: for servers that hold on to theirs. */
  onChange(listener: (tls: TlsServerOptions) => Promise<void> | void): void {
    this.#listeners.add(listener);
  }

  /** True when there is a new one. On an error the old one stays. @throws as `load` */
  async reload(): Promise<boolean> {
    const { tls, expiresMs } = await load(this.#files, this.#paths);
    if (tls.certPem === this.#current.certPem && tls.keyPem === this.#current.keyPem) return false;
    this.#current = tls;
    this.#expiresMs = expiresMs;
    for (const listener of this.#listeners) await listener(tls);
    return true;
  }
}

/**
 * The authorities a client trusts, in PEM; undefined without a file: then the system's are trusted. Checked here because a TLS
 * library takes a file without a certificate for an empty list, and the operator learns of it from every connection alone.
 * @throws StrataError fix-input `bad-certificate-authority`; what reading the file throws
 */
export async function loadAuthorities(files: FileSystem, path: string | null | undefined): Promise<string | undefined> {
  if (path === null || path === undefined) return undefined;
  const pem = utf8ToString(await files.readFile(path));
  if (!holdsCertificate(pem)) throw new StrataError("fix-input", "bad-certificate-authority", `${path} holds no certificate in PEM`);
  return pem;
}

function holdsCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).raw.length > 0;
  } catch {
    // Why it is none says the library in words of its own, which help nobody.
    return false;
  }
}

interface Loaded {
  readonly tls: TlsServerOptions;
  readonly expiresMs: number;
}

async function load(files: FileSystem, { certPath, keyPath }: CertificateFiles): Promise<Loaded> {
  const certPem = utf8ToString(await files.readFile(certPath));
  const keyPem = utf8ToString(await files.readFile(keyPath));
  let certificate: X509Certificate;
  let belongs: boolean;
  try {
    certificate = new X509Certificate(certPem);
    belongs = certificate.checkPrivateKey(createPrivateKey(keyPem));
  } catch (cause) {
    throw new StrataError("fix-input", "bad-certificate", `${certPath} and ${keyPath} are not a certificate and a private key in PEM`, { cause });
  }
  if (!belongs) throw new StrataError("fix-input", "bad-certificate", `${keyPath} is not the key of the certificate ${certPath}`);
  return { tls: { certPem, keyPem }, expiresMs: Date.parse(certificate.validTo) };
}
