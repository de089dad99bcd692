/** S3 against a server that somebody else wrote (s3rver, under Node, which it is made for). */
import { afterAll, beforeAll, describe, setDefaultTimeout, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { realPlatform } from "../../src/platform/real/real-platform.ts";
import { S3Storage } from "../../src/remote-storage/s3.ts";
import { remoteStorageConformance } from "./conformance.ts";

// A busy machine may need a while.
setDefaultTimeout(60_000);

/** A bucket for each test. */
const BUCKETS = 60;
const SERVER = `
const S3rver = require("@20minutes/s3rver");
const [directory, count] = process.argv.slice(1);
const configureBuckets = Array.from({ length: Number(count) }, (_, at) => ({ name: "bucket-" + (at + 1) }));
new S3rver({ address: "127.0.0.1", port: 0, silent: true, directory, configureBuckets }).run().then(({ port }) => console.log(port));
`;

const node = Bun.which("node");
if (node === null) test.skip("there is no node: the conformance suite does not run against s3rver", () => {});
else describe("with s3rver", () => withS3rver(node));

function withS3rver(program: string): void {
  const platform = realPlatform();
  let directory = "";
  let endpoint = "";
  let buckets = 0;
  let child: Bun.Subprocess<"ignore", "pipe", "ignore"> | null = null;

  beforeAll(async () => {
    directory = await mkdtemp(`${tmpdir()}/strata-s3rver-`);
    // It makes its continuation tokens with a cipher that newer OpenSSL has only among the old ones.
    child = Bun.spawn([program, "--openssl-legacy-provider", "-e", SERVER, directory, String(BUCKETS)], { cwd: join(import.meta.dir, "../.."), stdio: ["ignore", "pipe", "ignore"] });
    const { value } = await child.stdout.getReader().read();
    endpoint = `http://127.0.0.1:${new TextDecoder().decode(value).trim()}`;
  }, 60_000);
  afterAll(async () => {
    child?.kill();
    await child?.exited;
    await rm(directory, { recursive: true, force: true });
  });

  const make = async (prefix = "") => {
    const bucket = `bucket-${++buckets}`;
    const storage = new S3Storage({
      endpoint, region: "us-east-1", bucket, prefix, platform, credentials: async () => ({ accessKeyId: "S3RVER", secretAccessKey: "S3RVER" }), fetch: (url, init) => fetch(url, init as RequestInit),
    });
    const writeFile = async (bytes: Uint8Array) => {
      await Bun.write(`${directory}.upload`, bytes);
      return `${directory}.upload`;
    };
    return { storage, writeFile };
  };
  afterAll(() => rm(`${directory}.upload`, { force: true }));

  remoteStorageConformance("S3 of s3rver", () => make(), { listsInOrder: false, exactKeys: false });
  remoteStorageConformance("S3 of s3rver below a prefix", () => make("some/where/"), { listsInOrder: false, exactKeys: false });
}
