/** The names in a folder that need not exist. */
import { readdir } from "node:fs/promises";
import { systemErrorName } from "./errors.ts";

/** Empty where there is no such folder; any other failure is thrown as it is. */
export async function namesIn(folder: string): Promise<readonly string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (systemErrorName(error) === "ENOENT") return [];
    throw error;
  }
}
