/** The client's half of the handshake, up to the first ReadyForQuery. */
import { ByteReader } from "../kit/bytes.ts";
import { StrataError } from "../kit/errors.ts";
import type { Random } from "../platform/random.ts";
import { ScramClient, checkMechanisms, md5Password } from "./client-auth.ts";
import type { PgFrame } from "./framer.ts";
import type { PgMessageWriter } from "./message-writer.ts";
import { AUTH, PROTOCOL_3_0, TAG } from "./protocol.ts";
import { violation } from "./startup.ts";

const SCRAM_NONCE_BYTES = 18;

export function writeStartup(writer: PgMessageWriter, parameters: Readonly<Record<string, string>>): void {
  writer.beginUntagged().u32(PROTOCOL_3_0);
  for (const [name, value] of Object.entries(parameters)) writer.cstring(name).cstring(value);
  writer.u8(0).finish();
}

/** Answers Authentication messages; fed each of them in turn. */
export class ClientAuthentication {
  readonly #writer: PgMessageWriter;
  readonly #user: string;
  readonly #password: string | undefined;
  readonly #random: Random;
  #scram: ScramClient | null = null;

  constructor(options: { writer: PgMessageWriter; user: string; password: string | undefined; random: Random }) {
    this.#writer = options.writer;
    this.#user = options.user;
    this.#password = options.password;
    this.#random = options.random;
  }

  /** @throws StrataError unauthenticated `password-needed` or `scram-failed`, fix-input `not-supported` */
  answer(frame: PgFrame): void {
    const reader = new ByteReader(frame.body, "authentication message");
    const kind = reader.u32be();
    switch (kind) {
      case AUTH.ok:
        if (this.#scram !== null && !this.#scram.verified) throw violation("the server ended SCRAM without its proof");
        return;
      case AUTH.cleartext:
        this.#writer.begin(TAG.password).cstring(this.#secret()).finish();
        return;
      case AUTH.md5:
        this.#writer.begin(TAG.password).cstring(md5Password({ user: this.#user, password: this.#secret() }, reader.bytes(4))).finish();
        return;
      case AUTH.sasl:
        this.#startScram(reader);
        return;
      case AUTH.saslContinue:
        this.#writer.begin(TAG.password).bytes(this.#conversation().final(reader.rest())).finish();
        return;
      case AUTH.saslFinal:
        this.#conversation().verify(reader.rest());
        return;
      default:
        throw new StrataError("fix-input", "not-supported", `the server asks for authentication method ${kind}, which is not supported`);
    }
  }

  #startScram(reader: ByteReader): void {
    checkMechanisms(reader);
    this.#scram = new ScramClient(this.#secret(), this.#random.bytes(SCRAM_NONCE_BYTES));
    const first = this.#scram.first();
    this.#writer.begin(TAG.password).cstring(this.#scram.mechanism).u32(first.length).bytes(first).finish();
  }

  #conversation(): ScramClient {
    if (this.#scram === null) throw violation("SASL continuation without a beginning");
    return this.#scram;
  }

  #secret(): string {
    if (this.#password === undefined) throw new StrataError("unauthenticated", "password-needed", "the server asks for a password and none is configured");
    return this.#password;
  }
}
