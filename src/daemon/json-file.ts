/** Small JSON records that survive a crash: written beside, synced, renamed. */
import { open, readdir, readFile, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
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
  await writeNewFile(path, Buffer.from(JSON.stringify(value)));
}

/** The file is whole, under its name and on the disk when it resolves; else nothing has changed. */
export async function writeNewFile(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const file = await open(temporary, "w", 0o600);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw withContext(error, `cannot write ${path}`);
  }
  await syncFolder(dirname(path));
}

/** What a process that was killed had begun to write; nobody else may be writing there now. */
export async function removeUnfinished(folder: string, name: RegExp): Promise<void> {
  for (const found of await readdir(folder)) {
    if (name.test(found)) await rm(join(folder, found), { force: true });
  }
}

/** Makes a rename in the folder durable. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
