/**
 * A network of named hosts. It may delay, hold back (partitions, one way or both), break connections, and leave half-open ones
 * behind when a host loses power. All its choices come from one seeded generator.
 */
import { Cancelled, InvariantError, StrataError } from "../../kit/errors.ts";
import type { Clock } from "../clock.ts";
import type { Connection, Listener, Network } from "../network.ts";
import { forever, type Lifeline } from "./lifeline.ts";
import type { SeededRandom } from "./seeded-random.ts";
import { VirtualConnection } from "./virtual-connection.ts";
import { type PipeLink, VirtualPipe } from "./virtual-pipe.ts";

export interface NetworkConditions {
  readonly minDelayMs: number;
  readonly maxDelayMs: number;
  /** Share of pieces that take ten times as long. */
  readonly slowShare: number;
  /** Share of pieces whose sending breaks the connection instead. */
  readonly resetShare: number;
  /** Whether writes arrive in other pieces than they were made in. */
  readonly fragment: boolean;
}

export const CALM: NetworkConditions = { minDelayMs: 0.05, maxDelayMs: 0.5, slowShare: 0, resetShare: 0, fragment: true };

const SLOW_FACTOR = 10;
const FIRST_EPHEMERAL_PORT = 40_000;
const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;

interface Host {
  readonly name: string;
  readonly listeners: Map<number, { accept: (connection: Connection) => void; lifeline: Lifeline }>;
  readonly connections: Set<VirtualConnection>;
  nextPort: number;
  /** Powered: what arrives is answered, if only with a reset. */
  up: boolean;
  /** Its processes stand still: what comes waits. */
  held: boolean;
}

export class VirtualNetwork {
  readonly #clock: Clock;
  readonly #random: SeededRandom;
  readonly #hosts = new Map<string, Host>();
  readonly #blocked = new Set<string>();
  #openWaiters: (() => void)[] = [];
  /** May be replaced while running. */
  conditions: NetworkConditions;

  constructor(options: { readonly clock: Clock; readonly random: SeededRandom; readonly conditions?: NetworkConditions }) {
    this.#clock = options.clock;
    this.#random = options.random;
    this.conditions = options.conditions ?? CALM;
  }

  get clock(): Clock {
    return this.#clock;
  }

  /** The network as the processes of one host see it. */
  attach(hostName: string, lifeline: Lifeline): Network {
    const host = this.#host(hostName);
    host.up = true;
    return new HostNetwork(this, host, lifeline);
  }

  /** Holds back what goes from one host to the other, until `heal`. */
  block(from: string, to: string): void {
    this.#blocked.add(`${from}>${to}`);
  }

  partition(a: string, b: string): void {
    this.block(a, b);
    this.block(b, a);
  }

  heal(): void {
    this.#blocked.clear();
    this.#releaseHeld();
  }

  /** Breaks every connection between the two, as seen by both ends. */
  resetBetween(a: string, b: string): void {
    for (const connection of [...this.#host(a).connections]) {
      if (connection.remote.startsWith(`${b}:`) && !connection.isClosed) connection.destroy();
    }
  }

  /** `host` loses its connections with `peer` without the peer's noticing: what is on the way to the peer still arrives, beside a new connection's. */
  forget(hostName: string, peer: string): void {
    for (const connection of [...this.#host(hostName).connections]) {
      if (connection.remote.startsWith(`${peer}:`)) connection.fail("forgotten by the network", true);
    }
  }

  /** A stopped host: nothing reaches its processes, until `release`. */
  hold(hostName: string): void {
    this.#host(hostName).held = true;
  }

  release(hostName: string): void {
    this.#host(hostName).held = false;
    this.#releaseHeld();
  }

  /** Its processes died; its kernel tells the other ends, by an end or a reset. The lifelines must have been cut. */
  killProcesses(hostName: string): void {
    const host = this.#host(hostName);
    host.listeners.clear();
    for (const connection of host.connections) {
      if (this.#random.chance(0.5)) connection.resetPeer();
      else connection.endForDead();
    }
    host.connections.clear();
  }

  /** Power is cut: other ends hear nothing, until they send something after it is back. */
  powerOff(hostName: string): void {
    const host = this.#host(hostName);
    host.up = false;
    host.listeners.clear();
    for (const connection of host.connections) connection.vanish();
    host.connections.clear();
  }

  isOpen(from: string, to: string): boolean {
    if (this.#blocked.size > 0 && this.#blocked.has(`${from}>${to}`)) return false;
    const host = this.#host(to);
    return host.up && !host.held;
  }

  /** @throws StrataError conflict `port-in-use` */
  listen(host: Host, options: { port: number; lifeline: Lifeline; accept: (connection: Connection) => void }): Listener {
    const port = options.port === 0 ? this.#freePort(host) : options.port;
    if (host.listeners.has(port)) throw new StrataError("conflict", "port-in-use", `${host.name}:${port} is in use`);
    const entry = { accept: options.accept, lifeline: options.lifeline };
    host.listeners.set(port, entry);
    return {
      port,
      close: async () => {
        if (host.listeners.get(port) === entry) host.listeners.delete(port);
      },
    };
  }

  /** Resolves null when nobody listens there; never, while the way there or back is closed. */
  async dial(host: Host, lifeline: Lifeline, address: { host: string; port: number }): Promise<VirtualConnection | null> {
    const targetName = isLoopback(address.host) ? host.name : address.host;
    if (!this.#hosts.has(targetName)) return null;
    await this.#travel(host.name, targetName);
    const target = this.#host(targetName);
    const listener = target.listeners.get(address.port);
    const answer = listener === undefined || !listener.lifeline.alive ? null : this.#connect({ host, lifeline }, { host: target, lifeline: listener.lifeline, port: address.port });
    if (answer !== null) listener?.accept(answer.server);
    await this.#travel(targetName, host.name);
    return answer?.client ?? null;
  }

  async #travel(from: string, to: string): Promise<void> {
    await this.#clock.sleep(this.#delayMs());
    while (!this.isOpen(from, to)) await new Promise<void>((resolve) => this.#openWaiters.push(resolve));
  }

  #connect(near: { host: Host; lifeline: Lifeline }, far: { host: Host; lifeline: Lifeline; port: number }): { client: VirtualConnection; server: VirtualConnection } {
    const client = new VirtualConnection(`${far.host.name}:${far.port}`, near.lifeline);
    const server = new VirtualConnection(`${near.host.name}:${this.#freePort(near.host)}`, far.lifeline);
    const there = this.#pipe({ from: near.host, to: far.host, sender: client, receiver: server });
    const back = this.#pipe({ from: far.host, to: near.host, sender: server, receiver: client });
    client.attach(there, back);
    server.attach(back, there);
    for (const [host, connection] of [[near.host, client], [far.host, server]] as const) {
      host.connections.add(connection);
      void connection.closed.then(() => host.connections.delete(connection));
    }
    return { client, server };
  }

  #pipe(ends: { from: Host; to: Host; sender: VirtualConnection; receiver: VirtualConnection }): VirtualPipe {
    const link: PipeLink = {
      delayMs: () => {
        if (this.#random.chance(this.conditions.resetShare)) this.#clock.after(0, () => ends.sender.destroy());
        return this.#delayMs();
      },
      after: (delayMs, callback) => this.#clock.after(delayMs, callback),
      isOpen: () => this.isOpen(ends.from.name, ends.to.name),
      onOpen: (callback) => void this.#openWaiters.push(callback),
      pieceBytes: (length) => (this.conditions.fragment && this.#random.chance(0.3) ? 1 + this.#random.below(length) : length),
    };
    return new VirtualPipe(link, ends.receiver, { nowMs: () => this.#clock.monotonicMs(), onRoom: () => ends.sender.onRoom() });
  }

  /** Wakes what waits for a way to open; whoever finds it still closed waits again. */
  #releaseHeld(): void {
    const waiters = this.#openWaiters;
    this.#openWaiters = [];
    for (const waiter of waiters) waiter();
  }

  powerOn(hostName: string): void {
    this.#host(hostName).up = true;
    this.#releaseHeld();
  }

  #delayMs(): number {
    const { minDelayMs, maxDelayMs, slowShare } = this.conditions;
    const delayMs = minDelayMs + this.#random.float() * (maxDelayMs - minDelayMs);
    return this.#random.chance(slowShare) ? delayMs * SLOW_FACTOR : delayMs;
  }

  #freePort(host: Host): number {
    while (host.listeners.has(host.nextPort)) host.nextPort++;
    return host.nextPort++;
  }

  #host(name: string): Host {
    let host = this.#hosts.get(name);
    if (host === undefined) {
      host = { name, listeners: new Map(), connections: new Set(), nextPort: FIRST_EPHEMERAL_PORT, up: true, held: false };
      this.#hosts.set(name, host);
    }
    return host;
  }
}

class HostNetwork implements Network {
  readonly #network: VirtualNetwork;
  readonly #host: Host;
  readonly #lifeline: Lifeline;

  constructor(network: VirtualNetwork, host: Host, lifeline: Lifeline) {
    this.#network = network;
    this.#host = host;
    this.#lifeline = lifeline;
  }

  async listen(address: { host: string; port: number }, accept: (connection: Connection) => void): Promise<Listener> {
    await this.#lifeline.guard();
    return this.#network.listen(this.#host, { port: address.port, lifeline: this.#lifeline, accept });
  }

  async connect(address: { host: string; port: number } | { unixPath: string }, options: { timeoutMs?: number; signal?: AbortSignal } = {}): Promise<Connection> {
    await this.#lifeline.guard();
    if ("unixPath" in address) throw new StrataError("unavailable", "connect-failed", `nobody listens on ${address.unixPath}`);
    const remote = `${address.host}:${address.port}`;
    const outcome = await this.#race(address, options);
    if (!this.#lifeline.alive) return forever();
    if (outcome === "cancelled") throw new Cancelled(`connecting to ${remote} cancelled`);
    if (outcome === null) throw new StrataError("unavailable", "connect-failed", `nobody listens on ${remote}`);
    if (outcome === "late") throw new StrataError("unavailable", "connect-failed", `connecting to ${remote} took too long`);
    return outcome;
  }

  async upgradeToTlsServer(): Promise<Connection> {
    throw new InvariantError("the virtual network has no TLS");
  }

  async upgradeToTlsClient(): Promise<Connection> {
    throw new InvariantError("the virtual network has no TLS");
  }

  #race(address: { host: string; port: number }, options: { timeoutMs?: number; signal?: AbortSignal }): Promise<VirtualConnection | null | "late" | "cancelled"> {
    const { signal } = options;
    if (signal?.aborted === true) return Promise.resolve("cancelled");
    return new Promise((resolve, reject) => {
      const timer = this.#network.clock.after(options.timeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS, () => settle("late"));
      const onAbort = (): void => settle("cancelled");
      let settled = false;
      const settle = (outcome: VirtualConnection | null | "late" | "cancelled"): void => {
        settled = true;
        timer.cancel();
        signal?.removeEventListener("abort", onAbort);
        resolve(outcome);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      // One that comes too late is nobody's.
      this.#network.dial(this.#host, this.#lifeline, address).then((connection) => (settled ? connection?.destroy() : settle(connection)), reject);
    });
  }
}

function isLoopback(host: string): boolean {
  return host === "127.0.0.1" || host === "localhost" || host === "0.0.0.0";
}
