/** Our processes as the kernel shows them, their deaths, and their coming back. */
import { readFile, readdir, readlink } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connectControl } from "../../../src/control/index.ts";
import {
  Server,
  eventually,
  processesOf,
  programPath,
  type FaasnetDaemon,
  type Lab,
} from "../lab/index.ts";
import { ROLES, type Role } from "./plan.ts";

/** As a service manager does: a little later, the same command. */
const RESTART_DELAY_MS = 100;
const BACK_TIMEOUT_MS = 30_000;
const ASK_TIMEOUT_MS = 5_000;
const POLL_MS = 100;
const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 20_000;

const COMMANDS: Readonly<Record<Role, RegExp>> = {
  main: / daemon --config /,
  "image-service": /image-service-process\.js/,
  keeper: /keeper-process\.js/,
};

export interface LivingRoles {
  readonly pids: Readonly<Record<Role, readonly number[]>>;
  /** Job processes, self-test servers, what nobody knows. */
  readonly others: readonly string[];
}

/** Their command lines name no folder of ours: with a living image service they are its own. */
const CHILDREN = /\/(job|probe)-process\.js/;

/** Job processes and self-test servers of the whole laboratory that outlived their parent. */
export async function orphans(lab: Lab): Promise<readonly string[]> {
  const found: string[] = [];
  for (const { pid, command } of await processesOf(lab.folder)) {
    if (!CHILDREN.test(command)) continue;
    const stat = await readFile(`/proc/${pid}/stat`, "latin1").catch(() => "");
    const parent = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1] ?? "0";
    const above = await readFile(`/proc/${parent}/cmdline`, "latin1").catch(() => "");
    if (stat !== "" && !above.includes("image-service-process.js")) found.push(`${pid} ${command}`);
  }
  return found;
}

export async function livingRoles(daemon: FaasnetDaemon): Promise<LivingRoles> {
  const pids: Record<Role, number[]> = { main: [], "image-service": [], keeper: [] };
  const others: string[] = [];
  for (const { pid, command } of await daemon.processes()) {
    const role = ROLES.find((one) => COMMANDS[one].test(command));
    if (role === undefined) others.push(`${pid} ${command}`);
    else pids[role].push(pid);
  }
  return { pids, others };
}

/** The one process of each role; throws when there is none, or more than one. */
export async function soleRoles(daemon: FaasnetDaemon): Promise<Readonly<Record<Role, number>>> {
  const { pids } = await livingRoles(daemon);
  const sole = (role: Role): number => {
    const [pid, more] = pids[role];
    if (pid === undefined || more !== undefined) {
      throw new Error(`${pids[role].length} processes are ${role}: ${pids[role].join(", ")}`);
    }
    return pid;
  };
  return {
    main: sole("main"),
    "image-service": sole("image-service"),
    keeper: sole("keeper"),
  };
}

interface Status {
  readonly pid: number;
  readonly ready: boolean;
  readonly cache: { readonly usedBytes: number; readonly quotaBytes: number };
}

/** What the image service says of itself; without a process of the command line. */
export async function askStatus(daemon: FaasnetDaemon): Promise<Status> {
  const signal = AbortSignal.timeout(ASK_TIMEOUT_MS);
  const connection = await connectControl(join(daemon.state, "image.sock"), {}, { signal });
  try {
    const answer = (await connection.call("Image.Status", {}, { signal })) as { json: string };
    return JSON.parse(answer.json) as Status;
  } finally {
    await connection[Symbol.asyncDispose]();
  }
}

/** kill -9; one that has ended meanwhile is dead too. */
export function killNow(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

/**
 * The main process after its first death. Unlike the lab's own way of starting it, this needs no
 * process of the command line to see that it serves.
 */
export class MainProcess implements AsyncDisposable {
  readonly #daemon: FaasnetDaemon;
  readonly #env: Readonly<Record<string, string>>;
  #server: Server | undefined;

  constructor(lab: Lab, daemon: FaasnetDaemon) {
    this.#daemon = daemon;
    this.#env = lab.env;
    lab.use(this);
  }

  async kill(): Promise<void> {
    if (this.#server === undefined) await this.#daemon.killMain();
    else await this.#server.kill();
    this.#server = undefined;
  }

  async restart(): Promise<void> {
    await sleep(RESTART_DELAY_MS);
    const daemon = this.#daemon;
    const command = ["daemon", "--config", daemon.configFile];
    const before = await hasStarted(daemon);
    this.#server = await Server.start("faasnet daemon", programPath, command, {
      logFile: daemon.logFile,
      env: this.#env,
      ready: async () => {
        await sleep(POLL_MS);
        return (await hasStarted(daemon)) > before;
      },
      readyTimeoutMs: START_TIMEOUT_MS,
    });
  }

  /** By SIGTERM. */
  async stop(): Promise<void> {
    await this.#daemon.stop();
    await this.#server?.stop(STOP_TIMEOUT_MS);
    this.#server = undefined;
  }

  /** Containers have ended by now: all roles go with the main process. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server === undefined) return;
    await this.stop();
    const isGone = async (): Promise<boolean> => (await this.#daemon.processes()).length === 0;
    await eventually("all roles are gone", isGone, { timeoutMs: STOP_TIMEOUT_MS });
  }
}

/** How often its log says that it serves containerd. */
async function hasStarted(daemon: FaasnetDaemon): Promise<number> {
  const text = await readFile(daemon.logFile, "utf8");
  return text.split('"event":"daemon-started"').length - 1;
}

/** Resolves when one process of each role lives, none of them `dead`, and all serve. */
export async function rolesAreBack(
  daemon: FaasnetDaemon,
  dead: ReadonlySet<number>,
): Promise<Readonly<Record<Role, number>>> {
  const deadline = performance.now() + BACK_TIMEOUT_MS;
  for (;;) {
    let reason: string;
    try {
      const status = await askStatus(daemon);
      const keeper = Number(await readFile(join(daemon.state, "keeper.pid"), "utf8"));
      // A look at all processes costs much of the processor that they need: at the end.
      if (status.ready && !dead.has(status.pid) && !dead.has(keeper)) {
        const roles = await soleRoles(daemon);
        const isNew = roles.keeper === keeper && roles["image-service"] === status.pid;
        if (isNew && !dead.has(roles.main)) return roles;
      }
      reason = `image service ${status.pid}, keeper ${keeper}; dead: ${[...dead].join(", ")}`;
    } catch (error) {
      reason = String(error);
    }
    if (performance.now() > deadline) {
      const { pids, others } = await livingRoles(daemon);
      const alive = `${JSON.stringify(pids)} ${others.join("; ")}`;
      throw new Error(`not all roles came back within ${BACK_TIMEOUT_MS} ms: ${reason}; ${alive}`);
    }
    await sleep(POLL_MS);
  }
}

/** Where a process' descriptors lead. */
export async function openFiles(pid: number): Promise<readonly string[]> {
  const names = await readdir(`/proc/${pid}/fd`);
  return Promise.all(names.map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => "")));
}
