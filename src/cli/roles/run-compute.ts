/** `strata --role compute`. */
import { startCompute } from "../../compute/compute.ts";
import { COMPUTE_OPTIONS, computeConfig } from "./compute-options.ts";
import { roleProgram } from "./run-role.ts";

export const computeProgram = roleProgram({
  name: "compute",
  description: "Runs an unmodified PostgreSQL on a timeline.",
  options: COMPUTE_OPTIONS,
  start: async (values, context) => {
    const compute = await startCompute(computeConfig(values), context);
    const ended = compute.ended.then((error) => {
      if (error !== null) throw error;
    });
    return { stop: () => compute.stop(), ended };
  },
});
