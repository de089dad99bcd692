/**
 * A client of PostgreSQL's protocol that is nothing but bytes: start-up packet, frames in, frames out, over a real
 * socket. It shares no code with src/wire, so that both ends cannot be wrong in the same way.
 */
import { connect, type Socket } from "node:net";
import { bytes, cstr, u32 } from "./bytes.ts";

const PROTOCOL_3_0 = 196_608;
const WAIT_MS = 10_000;

export interface Frame {
  readonly tag: string;
  readonly body: Buffer;
}

export class RawLibpq {
  readonly #socket: Socket;
  #received: Buffer = Buffer.alloc(0);
  /** What came after it. */
  #later: Buffer[] = [];
  #laterBytes = 0;
  #ended = false;
  #wake: (() => void) | null = null;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#later.push(chunk);
      this.#laterBytes += chunk.length;
      this.#wake?.();
    });
    const end = (): void => {
      this.#ended = true;
      this.#wake?.();
    };
    socket.on("close", end);
    socket.on("end", end);
    // A reset is an end like any other here.
    socket.on("error", end);
  }

  static async open(port: number): Promise<RawLibpq> {
    const socket = connect({ host: "127.0.0.1", port, noDelay: true });
    const raw = new RawLibpq(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", () => resolve());
      socket.once("error", reject);
    });
    return raw;
  }

  /** Start-up to the first ReadyForQuery. Returns all frames of it, an ErrorResponse at the end included. */
  static async session(port: number, parameters: Readonly<Record<string, string>>, password?: string): Promise<{ raw: RawLibpq; frames: Frame[] }> {
    const raw = await RawLibpq.open(port);
    raw.startup(parameters);
    const frames: Frame[] = [];
    for (;;) {
      const frame = await raw.frame();
      if (frame === null) break;
      frames.push(frame);
      // AuthenticationCleartextPassword
      if (frame.tag === "R" && frame.body.readUInt32BE(0) === 3) {
        if (password === undefined) break;
        raw.message("p", cstr(password));
      }
      if (frame.tag === "Z" || frame.tag === "E") break;
    }
    return { raw, frames };
  }

  startup(parameters: Readonly<Record<string, string>>): void {
    const body = bytes(u32(PROTOCOL_3_0), ...Object.entries(parameters).flatMap(([name, value]) => [cstr(name), cstr(value)]), cstr(""));
    this.write(bytes(u32(body.length + 4), body));
  }

  write(data: Uint8Array): void {
    this.#socket.write(data);
  }

  message(tag: string, ...body: readonly Uint8Array[]): void {
    const whole = bytes(...body);
    this.write(bytes(Buffer.from(tag, "latin1"), u32(whole.length + 4), whole));
  }

  query(sql: string): void {
    this.message("Q", cstr(sql));
  }

  copyData(...body: readonly Uint8Array[]): void {
    this.message("d", ...body);
  }

  /** The next message; null when the server has closed. */
  async frame(): Promise<Frame | null> {
    const header = await this.#need(5);
    if (header === null) return null;
    const length = header.readUInt32BE(1);
    const whole = await this.#need(1 + length);
    if (whole === null) return null;
    this.#received = this.#received.subarray(1 + length);
    return { tag: whole.toString("latin1", 0, 1), body: Buffer.from(whole.subarray(5, 1 + length)) };
  }

  /** The next message, which must be of this kind. */
  async expect(tag: string): Promise<Buffer> {
    const frame = await this.frame();
    if (frame === null) throw new Error(`the server closed the connection where "${tag}" was expected`);
    if (frame.tag !== tag) throw new Error(`"${tag}" was expected, "${frame.tag}" came: ${frame.body.toString("latin1").slice(0, 300)}`);
    return frame.body;
  }

  /** Messages up to and with ReadyForQuery, or to the end of the connection. */
  async untilReady(): Promise<Frame[]> {
    const frames: Frame[] = [];
    for (;;) {
      const frame = await this.frame();
      if (frame === null) return frames;
      frames.push(frame);
      if (frame.tag === "Z") return frames;
    }
  }

  /** Takes nothing any more, until `resume`. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Says that no more comes, and goes on reading. */
  end(): void {
    this.#socket.end();
  }

  get isEnded(): boolean {
    return this.#ended;
  }

  close(): void {
    this.#socket.destroy();
  }

  async #need(count: number): Promise<Buffer | null> {
    const deadline = performance.now() + WAIT_MS;
    while (this.#received.length + this.#laterBytes < count) {
      if (this.#ended) return null;
      const leftMs = deadline - performance.now();
      if (leftMs <= 0) throw new Error(`nothing came within ${WAIT_MS} ms (${this.#received.length + this.#laterBytes} of ${count} bytes are here)`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    if (this.#received.length < count) {
      this.#received = Buffer.concat([this.#received, ...this.#later]);
      this.#later = [];
      this.#laterBytes = 0;
    }
    return this.#received;
  }
}

/** The fields of an ErrorResponse by their letters. */
export function errorFields(body: Buffer): Record<string, string> {
  const fields: Record<string, string> = {};
  for (const part of body.toString("utf8").split("\0")) if (part !== "") fields[part[0]] = part.slice(1);
  return fields;
}
