export interface SoakRound {
  readonly socket: string;
  readonly major: number;
  readonly seed: number;
  readonly untilMs: number;
}
export async function runSoakRound(_round: SoakRound): Promise<void> {}
