/** Ports for programs that must be told one before they start (PostgreSQL). Our own listeners use port 0 instead. */

/**
 * A TCP port nobody listens on at this moment. Another process may take it before you do: whoever starts a program on it
 * tries again with another when that happens.
 */
export function freePort(host = "127.0.0.1"): number {
  const listener = Bun.listen({ hostname: host, port: 0, socket: { data: () => {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}
