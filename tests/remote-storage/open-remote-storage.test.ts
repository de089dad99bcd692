import { expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { utf8 } from "../../src/kit/bytes.ts";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { openRemoteStorage } from "../../src/remote-storage/open-remote-storage.ts";

const seen: string[] = [];
const tools = {
  platform: realPlatform(),
  fetch: async (url: string) => {
    seen.push(url);
    return new Response("", { status: 201 });
  },
};

test("each kind opens at its address", async () => {
  const directory = await mkdtemp(`${tmpdir()}/strata-open-`);
  const local = await openRemoteStorage({ kind: "local", directory }, tools);
  await local.upload("a/b", { bytes: utf8("x") });
  expect(await Bun.file(`${directory}/a/b`).text()).toBe("x");
  await rm(directory, { recursive: true });
  const s3 = await openRemoteStorage({ kind: "s3", bucket: "bucket", region: "eu-west-1", prefix: "p/", credentials: { kind: "keys", accessKeyId: "a", secretAccessKey: "b" } }, tools);
  await s3.upload("k", { bytes: utf8("x") });
  const azure = await openRemoteStorage({ kind: "azure", account: "account", credentials: { kind: "key", accountKey: "AAAA" }, container: "container" }, tools);
  await azure.upload("k", { bytes: utf8("x") });
  expect(seen).toEqual(["https://s3.eu-west-1.amazonaws.com/bucket/p/k", "https://account.blob.core.windows.net/container/k"]);
});
