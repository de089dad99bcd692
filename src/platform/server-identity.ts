/** Whether a TLS certificate is for a host: for libraries that open their own connections. Runs under Bun and Node. */
import { isIP } from "node:net";
import { checkServerIdentity, type PeerCertificate } from "node:tls";

/** @param host without brackets */
export function isIpAddress(host: string): boolean {
  return isIP(host) !== 0;
}

/** Undefined when it is, else why not. */
export function certificateMismatch(host: string, certificate: PeerCertificate): Error | undefined {
  return checkServerIdentity(host, certificate);
}
