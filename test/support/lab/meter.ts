/** Peak memory and open files of our program's processes, by role, while a test works them. */
import { readFile, readdir, readlink } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

export type Role = "main" | "image-service" | "keeper" | "map-job" | "mount";
export const ROLES: readonly Role[] = ["main", "image-service", "keeper", "map-job", "mount"];

const SAMPLE_MS = 100;
/** Looks at a process before its role is believed. */
const LOOKS_MAX = 3;

export interface Memory {
  readonly pss: number;
  readonly rss: number;
  /** The part of `pss` that no file backs: heaps, buffers, stacks. */
  readonly anonymous: number;
}

export interface MeterReport {
  /** Each role's own peak, its processes (map jobs) together. */
  readonly peaks: ReadonlyMap<Role, Memory>;
  /** The highest sum of all roles but map jobs at one moment. */
  readonly servicesPss: number;
  /** With map jobs. */
  readonly allPss: number;
  readonly samples: number;
}

async function readProc(pid: number, file: string): Promise<string> {
  return readFile(`/proc/${pid}/${file}`, "latin1").catch(() => "");
}

function roleOf(command: string): Role | undefined {
  if (command.includes("/keeper-process.js")) return "keeper";
  if (command.includes("/image-service-process.js")) return "image-service";
  if (command.includes("/job-process.js")) return "map-job";
  if (command.includes("\0daemon\0")) return "main";
  if (command.includes("\0mount\0")) return "mount";
  return undefined;
}

/** Undefined for a process that is not ours, or no role (a client). */
async function classify(pid: number, folder: string): Promise<Role | undefined> {
  if (!(await readProc(pid, "environ")).includes(`FAASNET_LAB=${folder}\0`)) return undefined;
  const executable = await readlink(`/proc/${pid}/exe`).catch(() => "");
  if (executable !== process.execPath) return undefined;
  return roleOf(await readProc(pid, "cmdline"));
}

async function memoryOf(pid: number): Promise<Memory> {
  const text = await readProc(pid, "smaps_rollup");
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1] ?? 0) * 1024;
  return { pss: field("Pss"), rss: field("Rss"), anonymous: field("Pss_Anon") };
}

function sum(all: readonly Memory[]): Memory {
  const total = { pss: 0, rss: 0, anonymous: 0 };
  for (const one of all) {
    total.pss += one.pss;
    total.rss += one.rss;
    total.anonymous += one.anonymous;
  }
  return total;
}

/** Of these roles there is one process; a second one was forked from it just now. */
function largest(all: readonly Memory[]): Memory {
  return all.reduce((most, one) => (one.pss > most.pss ? one : most));
}

export class Meter implements AsyncDisposable {
  readonly #folder: string;
  readonly #roles = new Map<number, Role>();
  readonly #looks = new Map<number, number>();
  readonly #peaks = new Map<Role, Memory>();
  #servicesPss = 0;
  #allPss = 0;
  #samples = 0;
  #isEnded = false;
  readonly #loop: Promise<void>;

  /** `folder` is the lab's. */
  constructor(folder: string) {
    this.#folder = folder;
    this.#loop = this.#run();
  }

  async #processes(): Promise<ReadonlyMap<number, Role>> {
    const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
    const found = new Map<number, Role>();
    for (const pid of pids) {
      const role = await this.#roleOf(pid);
      if (role !== undefined) found.set(pid, role);
    }
    return found;
  }

  /** Looked at more than once: a process that was just forked is not yet what it will be. */
  async #roleOf(pid: number): Promise<Role | undefined> {
    const looks = this.#looks.get(pid) ?? 0;
    if (looks >= LOOKS_MAX) return this.#roles.get(pid);
    this.#looks.set(pid, looks + 1);
    const role = await classify(pid, this.#folder);
    if (role === undefined) this.#roles.delete(pid);
    else this.#roles.set(pid, role);
    return role;
  }

  async #sample(): Promise<void> {
    const byRole = new Map<Role, Memory[]>();
    for (const [pid, role] of await this.#processes()) {
      const memory = await memoryOf(pid);
      byRole.set(role, [...(byRole.get(role) ?? []), memory]);
    }
    let all = 0;
    for (const [role, each] of byRole) {
      const now = role === "map-job" ? sum(each) : largest(each);
      const peak = this.#peaks.get(role) ?? { pss: 0, rss: 0, anonymous: 0 };
      this.#peaks.set(role, {
        pss: Math.max(peak.pss, now.pss),
        rss: Math.max(peak.rss, now.rss),
        anonymous: Math.max(peak.anonymous, now.anonymous),
      });
      all += now.pss;
    }
    const jobs = sum(byRole.get("map-job") ?? []).pss;
    this.#allPss = Math.max(this.#allPss, all);
    this.#servicesPss = Math.max(this.#servicesPss, all - jobs);
    this.#samples += 1;
  }

  async #run(): Promise<void> {
    while (!this.#isEnded) {
      const startedMs = performance.now();
      await this.#sample();
      await sleep(Math.max(1, SAMPLE_MS - (performance.now() - startedMs)));
    }
  }

  /** Peaks so far, and forgets them: the next report is about what comes next. */
  async report(): Promise<MeterReport> {
    await this.#sample();
    const report = {
      peaks: new Map(this.#peaks),
      servicesPss: this.#servicesPss,
      allPss: this.#allPss,
      samples: this.#samples,
    };
    this.#peaks.clear();
    this.#servicesPss = 0;
    this.#allPss = 0;
    this.#samples = 0;
    return report;
  }

  /** Open file descriptors of each role's processes. */
  async openFiles(): Promise<ReadonlyMap<Role, number>> {
    const counts = new Map<Role, number>();
    for (const [pid, role] of await this.#processes()) {
      const files = await readdir(`/proc/${pid}/fd`).catch(() => []);
      counts.set(role, (counts.get(role) ?? 0) + files.length);
    }
    return counts;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isEnded = true;
    await this.#loop;
  }
}
