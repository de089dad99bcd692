/** Ports for programs that must be told one before they start (PostgreSQL), or keep one from run to run. Other listeners use port 0. */
import { readFileSync } from "node:fs";

/** Below are well-known services. */
const LOWEST = 10_240;
const DEFAULT_EPHEMERAL_START = 32_768;
const TRIES_MAX = 200;
const handedOut = new Set<number>();

/** Where the system begins to take ports for outgoing connections: one of those may be taken at any moment, and for minutes. */
function ephemeralStart(): number {
  try {
    const start = Number(readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8").trim().split(/\s+/)[0]);
    return start > LOWEST + 1000 ? start : DEFAULT_EPHEMERAL_START;
  } catch {
    return DEFAULT_EPHEMERAL_START;
  }
}

function canListen(hostname: string, port: number): boolean {
  try {
    Bun.listen({ hostname, port, socket: { data: () => {} } }).stop(true);
    return true;
  } catch {
    // In use, or not ours to use: either way another will do.
    return false;
  }
}

/**
 * A TCP port nobody listens on at this moment, outside the range of outgoing connections, and not given out here before.
 * Another process may take it before you do: whoever starts a program on it tries again with another when that happens.
 */
export function freePort(host = "127.0.0.1"): number {
  const range = ephemeralStart() - LOWEST;
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const port = LOWEST + Math.floor(Math.random() * range);
    if (handedOut.has(port) || !canListen(host, port)) continue;
    handedOut.add(port);
    return port;
  }
  const listener = Bun.listen({ hostname: host, port: 0, socket: { data: () => {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}
