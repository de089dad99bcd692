/** See platform/pacer.ts. */
export { Pacer } from "../../platform/pacer.ts";
