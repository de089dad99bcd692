/**
 * What a role proves itself and checks others by: its certificate and the public keys of tokens. All of it is read again every
 * now and then, so that it can be replaced without a restart; what cannot be used is told, and what was in use stays.
 *
 * Source of the metrics' names: the peer (neondatabase/neon) libs/http-utils/src/tls_certs.rs.
 */
import type { Logger } from "../observability/log.ts";
import type { CounterChild, Metrics } from "../observability/metrics.ts";
import type { Timer } from "../platform/clock.ts";
import type { TlsServerOptions } from "../platform/network.ts";
import type { Platform } from "../platform/platform.ts";
import { JwtAuth } from "./auth.ts";
import { Certificate, type CertificateFiles } from "./certificate.ts";

/** A role's TLS settings. */
export interface TlsFiles extends CertificateFiles {
  /** How often they are looked at; 60 s unless given. */
  readonly reloadPeriodMs?: number;
}

export interface CredentialsOptions {
  readonly platform: Pick<Platform, "clock" | "files">;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Label of the metrics. */
  readonly name: string;
  /** What tokens must be meant for, if they say whom they are meant for. */
  readonly audience: string;
  readonly reloadPeriodMs?: number | undefined;
}

export const DEFAULT_RELOAD_PERIOD_MS = 60_000;

export class Credentials {
  readonly #options: CredentialsOptions;
  readonly #keys = new Map<string, JwtAuth>();
  #certificate: Certificate | null = null;
  #timer: Timer | null = null;
  #stopped = false;
  #reloading: Promise<void> = Promise.resolve();
  #lastFailed = false;
  #counters: { readonly started: CounterChild; readonly updated: CounterChild; readonly failed: CounterChild } | null = null;

  constructor(options: CredentialsOptions) {
    this.#options = options;
  }

  /** Keys from a PEM file or a directory of them; null for null. @throws StrataError fix-input `bad-jwt-key` */
  async keys(path: string | null): Promise<JwtAuth | null> {
    if (path === null) return null;
    const known = this.#keys.get(path);
    if (known !== undefined) return known;
    const { platform, audience } = this.#options;
    const keys = await JwtAuth.load(platform.files, path, { wallMs: () => platform.clock.wallMs(), audience });
    this.#keys.set(path, keys);
    this.#again();
    return keys;
  }

  /** The role's one certificate. @throws StrataError fix-input `bad-certificate` */
  async certificate(paths: CertificateFiles): Promise<Certificate> {
    this.#certificate ??= await this.#loadCertificate(paths);
    this.#again();
    return this.#certificate;
  }

  async #loadCertificate(paths: CertificateFiles): Promise<Certificate> {
    const { platform, metrics, name } = this.#options;
    const certificate = await Certificate.load(platform.files, paths);
    const counter = (metric: string, help: string): CounterChild => metrics.counter({ name: metric, help, labels: ["resolver_name"] }).with(name);
    this.#counters = {
      started: counter("tls_certs_reload_started_total", "Looks at the certificate's files"),
      updated: counter("tls_certs_reload_updated_total", "Times a new certificate was taken"),
      failed: counter("tls_certs_reload_failed_total", "Times the files could not be used"),
    };
    metrics.gaugesFrom({ name: "tls_certs_expiration_time_seconds", help: "When the certificate ends, since the epoch", labels: ["resolver_name"] }, () => [{ labels: [name], value: certificate.expiresMs / 1000 }]);
    return certificate;
  }

  /** Reads everything again, now. Never throws. */
  async reload(): Promise<void> {
    this.#reloading = this.#reloading.then(() => this.#reload());
    await this.#reloading;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#reloading;
  }

  #again(): void {
    if (this.#stopped || this.#timer !== null) return;
    const { platform, reloadPeriodMs } = this.#options;
    this.#timer = platform.clock.after(reloadPeriodMs ?? DEFAULT_RELOAD_PERIOD_MS, () => void this.reload().then(() => {
      this.#timer = null;
      this.#again();
    }));
  }

  async #reload(): Promise<void> {
    const { log } = this.#options;
    let failed = false;
    const attempt = async (what: string, action: () => Promise<unknown>): Promise<void> => {
      try {
        await action();
      } catch (error) {
        failed = true;
        // The first time it may have been caught in the middle of being replaced.
        log[this.#lastFailed ? "warn" : "info"](`${what} cannot be read again, the old ones stay`, { error });
      }
    };
    for (const keys of this.#keys.values()) await attempt("the keys of tokens", () => keys.reload());
    if (this.#certificate !== null) await attempt("the certificate and its key", () => this.#reloadCertificate());
    this.#lastFailed = failed;
  }

  async #reloadCertificate(): Promise<void> {
    this.#counters?.started.inc();
    try {
      if (await this.#certificate?.reload() !== true) return;
      this.#counters?.updated.inc();
      this.#options.log.info("there is a new certificate");
    } catch (error) {
      this.#counters?.failed.inc();
      throw error;
    }
  }
}

/** The certificate of each moment, for a listener of connections. */
export function currentOf(certificate: Certificate | null): (() => TlsServerOptions) | null {
  return certificate === null ? null : () => certificate.current;
}
