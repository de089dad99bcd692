/** A TCP relay that can stop: then nothing goes through any more, in either direction, and no connection ends. */
import { connect, createServer, type Socket } from "node:net";

export interface StoppableRelay {
  readonly port: number;
  stop(): void;
  close(): void;
}

export async function stoppableRelay(port: number): Promise<StoppableRelay> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    const upstream = connect(port, "127.0.0.1");
    for (const one of [socket, upstream]) one.on("error", () => undefined);
    socket.on("close", () => upstream.destroy());
    socket.pipe(upstream);
    upstream.pipe(socket);
    sockets.push(socket, upstream);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as { port: number }).port,
    stop: () => sockets.forEach((socket) => socket.unpipe().pause()),
    close: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
