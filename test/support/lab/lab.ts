/**
 * One test's laboratory: a folder, and everything that was started or mounted for the test. It ends
 * with the test; what is left behind is an error. A laboratory whose process was killed is cleared
 * away by the next one.
 */
import { mkdir, mkdtemp, readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Scope } from "../../../src/base/scope.ts";
import { mountsUnder, processesOf, unmountUnder } from "./kernel.ts";
import { run } from "./process.ts";

/** Short: unix sockets lie below it, and their paths may have 107 bytes. */
const PREFIX = "fnlab-";
const LEAVE_TIMEOUT_MS = 3_000;

export class Lab implements AsyncDisposable {
  readonly folder: string;
  readonly #scope = new Scope();
  #names = 0;
  #disposed: Promise<void> | undefined;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async create(): Promise<Lab> {
    await clearAbandoned();
    const folder = await mkdtemp(join(tmpdir(), `${PREFIX}${process.pid}-`));
    return new Lab(folder);
  }

  /** For processes of the test: by this the lab finds them and what they started. */
  get env(): Readonly<Record<string, string>> {
    return { FAASNET_LAB: this.folder };
  }

  use<T extends AsyncDisposable>(owner: T): T {
    return this.#scope.use(owner);
  }

  defer(cleanup: () => Promise<void> | void): void {
    this.#scope.defer(cleanup);
  }

  path(...parts: readonly string[]): string {
    return join(this.folder, ...parts);
  }

  /** A fresh folder. */
  async makeFolder(name: string): Promise<string> {
    const folder = this.path(`${name}${this.#names === 0 ? "" : String(this.#names)}`);
    this.#names += 1;
    await mkdir(folder, { recursive: true });
    return folder;
  }

  /** What of the test is still there: mounts and processes. */
  async leftovers(): Promise<readonly string[]> {
    const mounted = await mountsUnder(this.folder);
    const running = await processesOf(this.folder);
    return [
      ...mounted.map((entry) => `mount ${entry.type} ${entry.path}`),
      ...running.map((entry) => `process ${entry.pid} ${entry.command}`),
    ];
  }

  /** Ends everything. Throws when something outlived its owner, after clearing it away. */
  async [Symbol.asyncDispose](): Promise<void> {
    // Once: a signal may come while the work's own end is clearing away.
    this.#disposed ??= this.#dispose();
    await this.#disposed;
  }

  async #dispose(): Promise<void> {
    const failures: unknown[] = [];
    await this.#scope[Symbol.asyncDispose]().catch((error: unknown) => failures.push(error));
    let left = await this.leftovers();
    const deadline = performance.now() + LEAVE_TIMEOUT_MS;
    while (left.length > 0 && performance.now() < deadline) {
      await sleep(50); // an ending process, a lazy unmount
      left = await this.leftovers();
    }
    if (left.length > 0) failures.push(new Error(`left behind: ${left.join("; ")}`));
    await clear(this.folder);
    if (failures.length === 1) throw failures[0];
    if (failures.length > 1) throw new AggregateError(failures, failures.map(String).join("; "));
  }
}

async function clear(folder: string): Promise<void> {
  for (const { pid } of await processesOf(folder)) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      continue; // it ended by itself
    }
  }
  await unmountUnder(folder);
  // --one-file-system: never into something that could not be unmounted.
  await run("rm", ["-rf", "--one-file-system", folder], { allowFailure: true });
}

/** Clears away laboratories whose process is gone (killed, or out of time). */
export async function clearAbandoned(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = Number(new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1] ?? 0);
    if (pid !== 0 && pid !== process.pid && !isAlive(pid)) await clear(join(tmpdir(), name));
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}
