/** Small JSON records that survive a crash: written beside, synced, renamed. */
import { open, readFile, rename, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { systemErrorName, withContext } from "../base/errors.ts";

/** Records hold manifests and configs, which the OCI spec bounds at 4 MiB each. */
const JSON_FILE_BYTES_MAX = 32 * 1024 * 1024;

/** Undefined where there is no such file; `data-loss` where it is not JSON. */
export async function readJsonFile(path: string): Promise<unknown> {
  let text: string;
  try {
    const file = await open(path, "r");
    try {
      const { size } = await file.stat();
      if (size > JSON_FILE_BYTES_MAX) throw new Error(`${size} bytes is too large`);
      text = await readFile(file, "utf8");
    } finally {
      await file.close();
    }
  } catch (error) {
    if (systemErrorName(error) === "ENOENT") return undefined;
    throw withContext(error, `cannot read ${path}`, "data-loss");
  }
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw withContext(error, `${path} is not JSON`, "data-loss");
  }
}

export async function writeJsonFile(path: string, value: unknown): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  const file = await open(temporary, "w", 0o600);
  try {
    await file.writeFile(JSON.stringify(value));
    await file.sync();
  } finally {
    await file.close();
  }
  try {
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary);
    throw error;
  }
  await syncFolder(dirname(path));
}

/** Makes a rename in the folder durable. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
