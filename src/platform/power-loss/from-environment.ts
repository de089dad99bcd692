/** Turns the testing aid on: `STRATA_POWER_LOSS_SHADOW=directory`, `STRATA_POWER_LOSS_ROOTS=live:live:…` (absolute paths). */
import { StrataError } from "../../kit/errors.ts";
import type { Platform } from "../platform.ts";
import { PowerLossFiles } from "./power-loss-files.ts";

export const SHADOW_VARIABLE = "STRATA_POWER_LOSS_SHADOW";
export const ROOTS_VARIABLE = "STRATA_POWER_LOSS_ROOTS";

/** The platform itself when nothing is asked for. @throws StrataError fix-input `usage` */
export function withPowerLossShadow(platform: Platform, environment: Readonly<Record<string, string | undefined>>): Platform {
  const shadowDirectory = environment[SHADOW_VARIABLE];
  if (shadowDirectory === undefined || shadowDirectory === "") return platform;
  const roots = (environment[ROOTS_VARIABLE] ?? "").split(":").filter((root) => root !== "");
  if (roots.length === 0 || [shadowDirectory, ...roots].some((path) => !path.startsWith("/"))) {
    throw new StrataError("fix-input", "usage", `${SHADOW_VARIABLE} wants an absolute path, and ${ROOTS_VARIABLE} the absolute paths it is about`);
  }
  return { ...platform, files: new PowerLossFiles(platform.files, { roots, shadowDirectory }) };
}
