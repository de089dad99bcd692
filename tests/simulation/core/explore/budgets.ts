/** How often each thing may still go wrong, in one number. */
export const BUDGETS = ["crashes", "drops", "bumps", "gossips", "restarts", "expiries", "saves", "operator"] as const;
export type Budget = (typeof BUDGETS)[number];

const BITS = 3;
const MOST = 2 ** BITS - 1;
const SHIFT: Readonly<Record<Budget, number>> = { crashes: 0, drops: 3, bumps: 6, gossips: 9, restarts: 12, expiries: 15, saves: 18, operator: 21 };

export function packBudgets(budgets: Partial<Readonly<Record<Budget, number>>>): number {
  return BUDGETS.reduce((packed, kind) => {
    const count = budgets[kind] ?? 0;
    if (count > MOST) throw new Error(`${kind}: ${count}, at most ${MOST}`);
    return packed + count * 2 ** SHIFT[kind];
  }, 0);
}

export function budgetLeft(packed: number, kind: Budget): number {
  return (packed >> SHIFT[kind]) & MOST;
}

export function spend(packed: number, kind: Budget): number {
  return packed - (1 << SHIFT[kind]);
}
