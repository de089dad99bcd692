/** Certificates for `localhost` and 127.0.0.1, made by openssl. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

let made: { readonly certPem: string; readonly keyPem: string } | undefined;

/** The same one for a whole test process. */
export function selfSignedCertificate(): { readonly certPem: string; readonly keyPem: string } {
  made ??= newCertificate();
  return made;
}

/** A fresh one at each call. */
export function newCertificate(): { readonly certPem: string; readonly keyPem: string } {
  const directory = mkdtempSync(join(tmpdir(), "strata-cert-"));
  try {
    const key = join(directory, "key.pem");
    const cert = join(directory, "cert.pem");
    const command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert];
    const result = Bun.spawnSync([...command, "-days", "3650", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    if (!result.success) throw new Error(`openssl failed: ${result.stderr.toString()}`);
    return { certPem: readFileSync(cert, "utf8"), keyPem: readFileSync(key, "utf8") };
  } finally {
    rmSync(directory, { recursive: true });
  }
}
