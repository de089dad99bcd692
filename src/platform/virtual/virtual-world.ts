/**
 * A simulated world: one clock, one network, and machines with a disk each. Everything in it follows from the seed.
 *
 *   const world = new VirtualWorld({ seed });
 *   const machine = world.machine("sk1");
 *   world.clock.run(async () => { const safekeeper = await Safekeeper.start(machine.platform, …); … machine.crash(); … machine.boot(); });
 */
import type { Clock, Timer } from "../clock.ts";
import type { Platform } from "../platform.ts";
import { forever, Lifeline } from "./lifeline.ts";
import { SeededRandom } from "./seeded-random.ts";
import { sleepOn, VirtualClock } from "./virtual-clock.ts";
import { type DiskFaults, VirtualDisk } from "./virtual-disk.ts";
import { type NetworkConditions, VirtualNetwork } from "./virtual-network.ts";

export interface WorldOptions {
  readonly seed: number;
  readonly network?: NetworkConditions;
  /** Timers due at one moment fire in random order. */
  readonly shuffleTimers?: boolean;
}

export class VirtualWorld {
  readonly random: SeededRandom;
  readonly clock: VirtualClock;
  readonly network: VirtualNetwork;
  readonly #machines = new Map<string, VirtualMachine>();

  constructor(options: WorldOptions) {
    this.random = new SeededRandom(options.seed);
    this.clock = new VirtualClock(options.shuffleTimers === true ? { shuffle: this.random.fork("timers") } : {});
    this.network = new VirtualNetwork({ clock: this.clock, random: this.random.fork("network"), ...(options.network === undefined ? {} : { conditions: options.network }) });
  }

  /** The machine of this name, made and booted at the first call. */
  machine(name: string): VirtualMachine {
    let machine = this.#machines.get(name);
    if (machine === undefined) {
      machine = new VirtualMachine(this, name);
      this.#machines.set(name, machine);
    }
    return machine;
  }
}

export class VirtualMachine {
  readonly name: string;
  readonly disk: VirtualDisk;
  readonly #world: VirtualWorld;
  readonly #random: SeededRandom;
  #lifeline = new Lifeline();
  #boots = 0;
  #platform: Platform;
  readonly #pausable: PausableClock;

  constructor(world: VirtualWorld, name: string) {
    this.name = name;
    this.#world = world;
    this.#random = world.random.fork(`machine ${name}`);
    this.#pausable = new PausableClock(world.clock);
    this.disk = new VirtualDisk({ clock: this.#pausable, random: this.#random.fork("disk") });
    this.#platform = this.#makePlatform();
  }

  /** Of the processes started since the last boot. */
  get platform(): Platform {
    return this.#platform;
  }

  get isUp(): boolean {
    return this.#lifeline.alive;
  }

  set faults(faults: DiskFaults) {
    this.disk.faults = faults;
  }

  /** How far its wall clock is ahead of the world's. */
  set clockSkewMs(skewMs: number) {
    this.#pausable.skewMs = skewMs;
  }

  get isPaused(): boolean {
    return this.#pausable.paused;
  }

  /** Its processes stand still, as after SIGSTOP; time goes on without them. */
  pause(): void {
    this.#pausable.pause();
    this.#world.network.hold(this.name);
  }

  resume(): void {
    this.#pausable.resume();
    this.#world.network.release(this.name);
  }

  /** Power is cut: unsynced data may be gone, and other machines hear nothing. */
  crash(): void {
    this.#lifeline.cut();
    this.#world.network.powerOff(this.name);
    this.disk.crash();
  }

  /** kill -9 of all its processes: the page cache stays, and their connections are reset. */
  kill(): void {
    this.#lifeline.cut();
    this.disk.releaseLocks();
    this.#world.network.killProcesses(this.name);
  }

  /** After `crash` or `kill`: a platform for new processes. */
  boot(): Platform {
    this.#lifeline.cut();
    this.#lifeline = new Lifeline();
    this.#boots++;
    this.#platform = this.#makePlatform();
    this.#world.network.powerOn(this.name);
    return this.#platform;
  }

  #makePlatform(): Platform {
    const lifeline = this.#lifeline;
    return {
      clock: new ProcessClock(this.#pausable, lifeline),
      random: this.#random.fork(`boot ${this.#boots}`),
      files: this.disk.files(lifeline),
      network: this.#world.network.attach(this.name, lifeline),
    };
  }
}

/** The world's clock as one machine sees it: while it is paused its timers wait, then those that are due fire in their order. */
class PausableClock implements Clock {
  readonly #clock: VirtualClock;
  paused = false;
  skewMs = 0;
  #due: (() => void)[] = [];

  constructor(clock: VirtualClock) {
    this.#clock = clock;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
    const due = this.#due;
    this.#due = [];
    for (const callback of due) this.#clock.after(0, callback);
  }

  monotonicMs(): number {
    return this.#clock.monotonicMs();
  }

  wallMs(): number {
    return this.#clock.wallMs() + this.skewMs;
  }

  sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this, durationMs, signal);
  }

  after(delayMs: number, callback: () => void): Timer {
    let pending: (() => void) | null = callback;
    const fire = (): void => {
      if (this.paused) this.#due.push(fire);
      else pending?.();
    };
    const timer = this.#clock.after(delayMs, fire);
    return {
      cancel: () => {
        pending = null;
        timer.cancel();
      },
    };
  }
}

/** The machine's clock, for a process that may die: its timers die with it. */
class ProcessClock implements Clock {
  readonly #clock: Clock;
  readonly #lifeline: Lifeline;

  constructor(clock: Clock, lifeline: Lifeline) {
    this.#clock = clock;
    this.#lifeline = lifeline;
  }

  monotonicMs(): number {
    return this.#clock.monotonicMs();
  }

  wallMs(): number {
    return this.#clock.wallMs();
  }

  sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    return this.#lifeline.alive ? sleepOn(this, durationMs, signal) : forever();
  }

  after(delayMs: number, callback: () => void): Timer {
    return this.#clock.after(delayMs, () => {
      if (this.#lifeline.alive) callback();
    });
  }
}
