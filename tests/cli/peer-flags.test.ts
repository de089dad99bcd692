/** Every flag of the peer's binaries is taken by the role that stands for them; those that change nothing are told. */
import { describe, expect, test } from "bun:test";
import { ignoredFlags, type OptionTable, parseOptions } from "../../src/cli/options/option-table.ts";
import { BROKER_OPTIONS, brokerConfig } from "../../src/cli/roles/broker-options.ts";
import { CONTROLLER_OPTIONS, controllerConfig } from "../../src/cli/roles/controller-options.ts";
import { PAGESERVER_OPTIONS } from "../../src/cli/roles/pageserver-options.ts";
import { SAFEKEEPER_OPTIONS, safekeeperConfig } from "../../src/cli/roles/safekeeper-options.ts";

/** As an operator would write them, from the peer's argument definitions. */
const SAFEKEEPER = `-D /data --id 3 --init -l 0.0.0.0:5454 --listen-pg-tenant-only 0.0.0.0:5455 --listen-http 0.0.0.0:7676 --listen-https 0.0.0.0:7677 --advertise-pg sk.local:5454
  --availability-zone az-1 -n --dump-control-file /x --broker-endpoint http://b:50051 --broker-keepalive-interval 5s --heartbeat-timeout 5s --peer-recovery true
  --max-offloader-lag 134217728 --max-reelect-offloader-lag-bytes 1 --max-timeline-disk-usage-bytes 0 --wal-backup-parallel-jobs 5 --disable-wal-backup
  --pg-auth-public-key-path /k --pg-tenant-only-auth-public-key-path /k --http-auth-public-key-path /k --log-format plain --current-thread-runtime --walsenders-keep-horizon
  --partial-backup-timeout 15m --disable-periodic-broker-push --enable-offload --delete-offloaded-wal --control-file-save-interval 300s --partial-backup-concurrency 5
  --eviction-min-resident 15m --wal-reader-fanout --max-delta-for-fanout 1 --ssl-key-file server.key --ssl-cert-file /etc/server.crt --ssl-cert-reload-period 60s --ssl-ca-file /ca
  --use-https-safekeeper-api --auth-token-path /t --enable-tls-wal-service-api --dev`;
const CONTROLLER = `-l 0.0.0.0:1234 --listen-https 0.0.0.0:1235 --public-key KEY --jwt-token T --safekeeper-jwt-token T --control-plane-jwt-token T --peer-jwt-token T
  --control-plane-url http://c --database-url postgres://d --dev --max-offline-interval 30s --max-warming-up-interval 300s --split-threshold 1 --max-split-shards 8
  --initial-split-threshold 1 --initial-split-shards 2 --reconciler-concurrency 8 --priority-reconciler-concurrency 8 --safekeeper-reconciler-concurrency 8 --tenant-rate-limit 10
  --db-connect-timeout 5s --start-as-candidate --address-for-peers http://p --neon-local-repo-dir /r --chaos-interval 10s --max-secondary-lag-bytes 1 --heartbeat-interval 5s
  --long-reconcile-threshold 5s --use-https-pageserver-api --timelines-onto-safekeepers --use-https-safekeeper-api --ssl-key-file k --ssl-cert-file c --ssl-cert-reload-period 60s --ssl-ca-file a`;
const BROKER = "-l 0.0.0.0:50051 --listen-https-addr 0.0.0.0:50052 --timeline-chan-size 32 --all-keys-chan-size 16384 --log-format plain --ssl-key-file k --ssl-cert-file c --ssl-cert-reload-period 60s";

const words = (text: string): string[] => text.trim().split(/\s+/);

function parse<T extends OptionTable>(table: T, line: string) {
  const values = parseOptions(table, { program: "role", description: "", argv: words(line), environment: {}, print: () => undefined });
  return { values, ignored: ignoredFlags(table, values as Readonly<Record<string, unknown>>) };
}

describe("the peer's flags", () => {
  test("what changes nothing is told only when it was given", () => {
    expect(parse(PAGESERVER_OPTIONS, "-D /data").ignored).toEqual([]);
    expect(parse(PAGESERVER_OPTIONS, "-D /data --dev").ignored).toEqual(["--dev"]);
  });

  test("of the safekeeper", () => {
    const { values, ignored } = parse(SAFEKEEPER_OPTIONS, SAFEKEEPER);
    expect(safekeeperConfig(values, {})).toMatchObject({
      dataDirectory: "/data", httpsAddress: { host: "0.0.0.0", port: 7677 }, tls: { keyPath: "/data/server.key", certPath: "/etc/server.crt", reloadPeriodMs: 60_000 }, tlsWalService: true,
      sslCaFile: "/ca", useHttpsSafekeeperApi: true,
    });
    expect(ignored).toContain("--enable-offload");
    expect(ignored).not.toContain("--force-metric-collection-on-scrape");
  });

  test("of the storage controller", () => {
    const { values, ignored } = parse(CONTROLLER_OPTIONS, CONTROLLER);
    expect(controllerConfig(values)).toMatchObject({ publicKeyPem: "KEY", httpsAddress: { host: "0.0.0.0", port: 1235 }, tls: { keyPath: "k", certPath: "c" }, sslCaFile: "a", useHttpsPageserverApi: true });
    expect(ignored).toContain("--use-https-safekeeper-api");
  });

  test("of the broker and of the pageserver", () => {
    const broker = parse(BROKER_OPTIONS, BROKER);
    expect(brokerConfig(broker.values)).toMatchObject({ httpsAddress: { host: "0.0.0.0", port: 50_052 }, tls: { keyPath: "k", certPath: "c", reloadPeriodMs: 60_000 } });
    expect(broker.ignored).toEqual([]);
    expect(parse(PAGESERVER_OPTIONS, "-D /work --dev").values).toMatchObject({ workdir: "/work", dev: true });
  });

  test("and nothing is said of what was not given", () => {
    expect(parse(SAFEKEEPER_OPTIONS, "--id 1").ignored).toEqual([]);
  });
});
