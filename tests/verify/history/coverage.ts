/** What was compared, and under which circumstances: a run that never met one of them has not shown anything about it. */

const CIRCUMSTANCES = {
  exact: "at the very record that made the page",
  branch: "on branches",
  deepBranch: "on branches of branches",
  ownServer: "on branches with a server of their own",
  inherited: "inherited from an ancestor",
  collectedAncestor: "inherited from history that the ancestor itself has collected",
  collected: "on timelines after GC had removed layers of theirs",
  restarted: "after a restart",
  diskLost: "after a restart with a lost disk",
  fromImage: "out of an image layer",
  fromRecords: "by records on top of an older image",
  alone: "by reads of one page",
  vectored: "by reads of many",
} as const;

export type Circumstance = keyof typeof CIRCUMSTANCES;
const NAMES = Object.keys(CIRCUMSTANCES) as Circumstance[];

export class Coverage {
  compared = 0;
  compareMs = 0;
  readonly counts = new Map<Circumstance, number>(NAMES.map((name) => [name, 0]));

  met(circumstance: Circumstance, times = 1): void {
    this.counts.set(circumstance, (this.counts.get(circumstance) ?? 0) + times);
  }

  of(circumstance: Circumstance): number {
    return this.counts.get(circumstance) ?? 0;
  }

  add(other: Coverage): void {
    this.compared += other.compared;
    this.compareMs += other.compareMs;
    for (const [name, count] of other.counts) this.met(name, count);
  }

  lines(): string[] {
    const rate = this.compareMs === 0 ? 0 : (this.compared / this.compareMs) * 1000;
    return [
      `${this.compared} pages compared at an LSN, ${rate.toFixed(0)}/s while comparing; of them`,
      ...NAMES.map((name) => `${String(this.of(name)).padStart(10)} ${CIRCUMSTANCES[name]}`),
    ];
  }

  /** Circumstances that never occurred. */
  get missing(): Circumstance[] {
    return NAMES.filter((name) => this.of(name) === 0);
  }
}
