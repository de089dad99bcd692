/**
 * Nothing acknowledged is lost: `bun run verify durability [--rounds N] [--seed S] [--pg V] [--program PATH]`.
 *
 * Commits numbered rows on a whole cluster while its processes are killed, lose what they had not synced and have their
 * directories destroyed. Exit code 1 when an acknowledged row is missing, or the cluster does not come back. The seed chooses what
 * is killed; when exactly is up to the machine. The program is these sources, or an executable.
 */
import { parseArgs } from "node:util";
import { STOCK_MAJORS } from "../support/stock-postgres.ts";
import { runDurability } from "./durability/run.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "10" }, seed: { type: "string" }, pg: { type: "string", default: "17" }, program: { type: "string" } } });
const pgVersion = STOCK_MAJORS.find((known) => String(known) === values.pg);
if (pgVersion === undefined) throw new Error(`--pg ${values.pg}: one of ${STOCK_MAJORS.join(", ")}`);
const rounds = Number(values.rounds);
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
console.log(`seed ${seed}`);
const { lostRows, lostSectors, lostNameChanges } = await runDurability({ rounds, seed, pgVersion, print: console.log, ...(values.program === undefined ? {} : { program: [values.program] }) });
console.log(`lost with the power: ${lostSectors} unsynced sectors, ${lostNameChanges} unsynced changes of names`);
console.log(`durability: ${rounds} rounds, ${lostRows} lost`);
process.exitCode = lostRows === 0 ? 0 : 1;
