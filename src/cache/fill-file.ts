/** The file of a filling pass, as the child process writes it. */
import { open } from "node:fs/promises";
import { systemErrorName } from "../base/errors.ts";
import { writeAll } from "../base/write-all.ts";

export interface FillFile extends AsyncDisposable {
  /** False when the disk is full: what was written before is still good. */
  write(bytes: Uint8Array, position: number): Promise<boolean>;
}

export async function nodeFillFile(path: string): Promise<FillFile> {
  const handle = await open(path, "w", 0o600);
  return {
    write: async (bytes, position) => {
      try {
        await writeAll(handle, bytes, position);
        return true;
      } catch (error) {
        const name = systemErrorName(error);
        if (name === "ENOSPC" || name === "EDQUOT") return false;
        throw error;
      }
    },
    [Symbol.asyncDispose]: async () => {
      await handle.close();
    },
  };
}
