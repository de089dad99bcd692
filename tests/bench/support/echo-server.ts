/** A server that answers each request of `argv[2]` bytes with `argv[3]` bytes, and does nothing else. Prints its port. */
const requestBytes = Number(process.argv[2]);
const answerBytes = Number(process.argv[3]);
const MOST = 32;
const answers = new Uint8Array(answerBytes * MOST);

interface State {
  received: number;
  /** Still to be sent. */
  owed: number;
}

function send(socket: Bun.Socket<State>): void {
  const { data } = socket;
  while (data.owed > 0) {
    const wanted = Math.min(data.owed, answers.length);
    const sent = socket.write(answers, 0, wanted);
    if (sent > 0) data.owed -= sent;
    if (sent < wanted) return;
  }
}

const listener = Bun.listen<State>({
  hostname: "127.0.0.1", port: 0, data: { received: 0, owed: 0 },
  socket: {
    open(socket) {
      socket.data = { received: 0, owed: 0 };
      socket.setNoDelay(true);
    },
    data(socket, chunk) {
      const before = Math.floor(socket.data.received / requestBytes);
      socket.data.received += chunk.length;
      socket.data.owed += (Math.floor(socket.data.received / requestBytes) - before) * answerBytes;
      send(socket);
    },
    drain: send,
  },
});
console.log(listener.port);
