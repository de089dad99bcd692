/** WAL as a reader gets it. */
import { type Lsn, lsnToString } from "../../../src/kit/lsn.ts";
import { decodeSenderMessage } from "../../../src/wire/replication-messages.ts";
import { connectTo, type Target } from "./driver.ts";

/** @param target of the safekeeper. @throws when the stream ends before `range.to` */
export async function readWal(target: Target, range: { readonly from: Lsn; readonly to: Lsn }): Promise<Buffer> {
  const reader = await connectTo(target);
  try {
    const copy = await reader.copyBoth(`START_REPLICATION PHYSICAL ${lsnToString(range.from)}`);
    const out = Buffer.alloc(range.to - range.from);
    for (let at = 0; at < out.length; ) {
      const bytes = await copy.read();
      if (bytes === null) throw new Error("the stream ended");
      const message = decodeSenderMessage(bytes);
      if (message.kind !== "wal-data") continue;
      out.set(message.data, at);
      at += message.data.length;
    }
    return out;
  } finally {
    reader.destroy();
  }
}
