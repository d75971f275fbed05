/** `faasnet mount IMAGE DIR` as a user runs it: in the foreground, ended by ctrl-C. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { mountsUnder } from "./kernel.ts";
import type { Lab } from "./lab.ts";
import { programPath } from "./paths.ts";
import { Server } from "./process.ts";
import type { MountMode } from "./daemon.ts";

const MAP_TIMEOUT_MS = 120_000;

export interface MountCommandOptions {
  readonly mode?: MountMode;
  /** Its persistent folder: maps made before are found there (default: one of its own). */
  readonly root?: string;
  readonly extra?: readonly string[];
}

export class MountCommand implements AsyncDisposable {
  /** Where the image is mounted. */
  readonly folder: string;
  readonly #server: Server;

  constructor(folder: string, server: Server) {
    this.folder = folder;
    this.#server = server;
  }

  /** Standard output and error. */
  get logFile(): string {
    return this.#server.logFile;
  }

  /** ctrl-C; its exit ("status 0") and all that it printed. */
  async end(): Promise<{ readonly exit: string; readonly output: string }> {
    this.#server.signal("SIGINT");
    await this.#server.exited;
    const output = await readFile(this.#server.logFile, "utf8");
    return { exit: this.#server.exit ?? "", output };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server.isRunning) await this.end();
  }
}

/** Resolves when the image is mounted. */
export async function faasnetMount(
  lab: Lab,
  image: string,
  options: MountCommandOptions = {},
): Promise<MountCommand> {
  const base = await lab.makeFolder("m");
  const folder = await lab.makeFolder("at");
  const place = ["--root", options.root ?? join(base, "root"), "--state", join(base, "state")];
  const how = ["--mode", options.mode ?? "auto", ...(options.extra ?? [])];
  const server = await Server.start(
    "faasnet mount",
    programPath,
    ["mount", ...place, ...how, image, folder],
    {
      logFile: join(base, "log"),
      env: lab.env,
      ready: async () => (await mountsUnder(folder)).length > 0,
      readyTimeoutMs: MAP_TIMEOUT_MS,
    },
  );
  return lab.use(new MountCommand(folder, server));
}
