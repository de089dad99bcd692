/** Certificates for `localhost` and 127.0.0.1, made by openssl. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

let made: { readonly certPem: string; readonly keyPem: string } | undefined;

/** The same one for a whole test process. */
export function selfSignedCertificate(): { readonly certPem: string; readonly keyPem: string } {
  made ??= newCertificate();
  return made;
}

/** A fresh one at each call. @param options.expired it ended yesterday */
export function newCertificate(options: { readonly expired: boolean } = { expired: false }): { readonly certPem: string; readonly keyPem: string } {
  const directory = mkdtempSync(join(tmpdir(), "strata-cert-"));
  const [key, cert, request, names] = ["key.pem", "cert.pem", "request.pem", "names"].map((name) => join(directory, name));
  try {
    writeFileSync(names, "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=critical,CA:TRUE\n");
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", request, "-subj", "/CN=localhost");
    openssl("x509", "-req", "-in", request, "-signkey", key, "-days", options.expired ? "-1" : "3650", "-extfile", names, "-out", cert);
    return { certPem: readFileSync(cert, "utf8"), keyPem: readFileSync(key, "utf8") };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function openssl(...args: string[]): void {
  const result = Bun.spawnSync(["openssl", ...args]);
  if (!result.success) throw new Error(`openssl failed: ${result.stderr.toString()}`);
}
