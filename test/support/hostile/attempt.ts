/** One try at mounting a hostile image with the real program, and all that it left. */
import { lstat, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { mountsUnder, processesOf, programPath, run, type Lab } from "../lab/index.ts";

const SAMPLE_MS = 25;
const KIB = 1024;

export interface Attempt {
  readonly status: number | null;
  readonly stderr: string;
  readonly seconds: number;
  /** Most that a job process had in memory at once; 0 unless it was asked for. */
  readonly peakRssBytes: number;
  /** Mounts and processes. */
  readonly left: readonly string[];
  /** Files below ROOT and STATE, but for what every start makes. */
  readonly files: readonly string[];
}

export interface AttemptOptions {
  readonly timeoutMs?: number;
  /** Sampling costs time: only where memory is in question. */
  readonly withMemory?: boolean;
}

/** `faasnet mount`, which is expected to end by itself. */
export async function attemptMount(
  lab: Lab,
  reference: string,
  options: AttemptOptions = {},
): Promise<Attempt> {
  const base = await lab.makeFolder("h");
  const folder = await lab.makeFolder("at");
  const place = ["--root", join(base, "root"), "--state", join(base, "state")];
  const memory = options.withMemory === true ? watchMemory(lab) : undefined;
  const args = ["mount", "--mode", "erofs", ...place, reference, folder];
  // Ends with this process, however that ends.
  const result = await run("setpriv", ["--pdeathsig", "KILL", "--", programPath, ...args], {
    allowFailure: true,
    env: lab.env,
    timeoutMs: options.timeoutMs ?? 60_000,
  });
  const peakRssBytes = (await memory?.()) ?? 0;
  const mounted = [...(await mountsUnder(base)), ...(await mountsUnder(folder))];
  const running = await processesOf(`${base}/`);
  return {
    status: result.status,
    stderr: result.stderr,
    seconds: result.seconds,
    peakRssBytes,
    left: [
      ...mounted.map(({ path }) => `mount ${path}`),
      ...running.map(({ command }) => `process ${command}`),
    ],
    files: await filesBelow(base),
  };
}

/** What every start leaves: the cache's session, locks, the self-test's verdict. */
const ORDINARY =
  /^(root\/cache\/session\.json|(root|state)\/[a-z]+\.lock|state\/(mounts|self-test)\.json)$/;

/** Paths of files below a folder. */
export async function filesBelow(folder: string): Promise<readonly string[]> {
  const found: string[] = [];
  const visit = async (relative: string): Promise<void> => {
    for (const name of await readdir(join(folder, relative))) {
      const path = relative === "" ? name : `${relative}/${name}`;
      if ((await lstat(join(folder, path))).isDirectory()) await visit(path);
      else if (!ORDINARY.test(path)) found.push(path);
    }
  };
  await visit("");
  return found.sort();
}

/** Follows the high-water marks of the lab's job processes, until it is called. */
export function watchMemory(lab: Lab): () => Promise<number> {
  let peak = 0;
  const over = new AbortController();
  const watching = (async () => {
    while (!over.signal.aborted) {
      for (const { pid, command } of await processesOf(lab.folder)) {
        if (!command.includes("job-process")) continue;
        const text = await readFile(`/proc/${pid}/status`, "latin1").catch(() => "");
        const kib = Number(/^VmHWM:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0);
        peak = Math.max(peak, kib * KIB);
      }
      await sleep(SAMPLE_MS);
    }
  })();
  return async () => {
    over.abort();
    await watching;
    return peak;
  };
}
