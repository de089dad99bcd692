/**
 * The HTTP application of each role as the role builds it, over services that only tell that they were reached: who gets
 * that far got in.
 */
import { addControlRoutes } from "../../../src/cli/dev/control-api.ts";
import { computeHttpApp } from "../../../src/compute/http/server.ts";
import { addControllerRoutes } from "../../../src/controller/http/routes.ts";
import { createHttpApp, type HttpApp } from "../../../src/http/app.ts";
import { JwtAuth } from "../../../src/http/auth.ts";
import { Metrics } from "../../../src/observability/metrics.ts";
import { RecordingLogger } from "../../../src/observability/recording-logger.ts";
import { pageserverHttpApp } from "../../../src/pageserver/http/routes.ts";
import { realPlatform } from "../../../src/platform/real/real-platform.ts";
import { safekeeperHttpApp } from "../../../src/safekeeper/http/routes.ts";
import { EXPECTED, type RoleName } from "./expected-routes.ts";
import { KEYS } from "./tokens.ts";

const platform = realPlatform();

export class RoleApp {
  readonly role: RoleName;
  readonly app: HttpApp;
  /** Times a service was touched. */
  reached = 0;

  constructor(role: RoleName) {
    this.role = role;
    this.app = this.#make();
  }

  /** A service that may be handed around, and throws as soon as anything is asked of it. */
  #service(): never {
    const ask = (): never => {
      this.reached++;
      throw new Error("a service was reached");
    };
    return new Proxy({}, { get: ask, has: ask, ownKeys: ask }) as never;
  }

  #make(): HttpApp {
    const jwt = JwtAuth.fromPem(KEYS.publicKeyPem, { wallMs: () => platform.clock.wallMs(), audience: this.role });
    const auth = { jwt, adminIsSuperset: EXPECTED[this.role].adminIsSuperset };
    const common = { role: this.role, log: new RecordingLogger(), auth, metrics: new Metrics(), version: "test", clock: platform.clock, random: platform.random };
    const service = (): never => this.#service();
    switch (this.role) {
      case "broker":
        return createHttpApp(common);
      case "safekeeper":
        return safekeeperHttpApp({ ...common, timelines: service(), dump: service(), pull: service(), backup: null } as never);
      case "pageserver":
        return pageserverHttpApp({ ...common, nodeId: 1, tenants: service(), deletionQueue: service(), defaultPgVersion: 17, jwt: service(), eviction: service(), imports: service(), evictionConfig: service(), diskSpace: () => this.#ask(), failpoints: null });
      case "controller": {
        const app = createHttpApp(common);
        addControllerRoutes(app, { state: service(), nodes: service(), tenants: service(), timelines: service(), ready: () => true, checkConsistency: () => this.#ask(), reconcileAll: () => this.#ask() });
        return app;
      }
      case "compute":
        return computeHttpApp({ ...common, config: service(), state: service(), platform });
      case "dev": {
        const app = createHttpApp({ ...common, auth: null });
        addControlRoutes(app, service(), { ready: () => true, stop: () => this.#ask() });
        return app;
      }
    }
  }

  #ask(): never {
    this.reached++;
    throw new Error("a service was reached");
  }
}
