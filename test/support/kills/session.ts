/**
 * One laboratory in which processes are killed: a containerd, our daemon, images. After every kill
 * what must come back by itself does, nothing committed is lost, and readers see right bytes.
 */
import { setTimeout as sleep } from "node:timers/promises";
import {
  Containerd,
  FaasnetDaemon,
  Registry,
  SNAPSHOTTER,
  eventually,
  expectedTree,
  imageFacts,
  type Lab,
  type LabImageName,
  type MountMode,
  type TreeManifest,
} from "../lab/index.ts";
import { countFiles, leaksOfIdle, leaksOfStopped, type FileCounts } from "./leaks.ts";
import { pushMadeImage } from "./made-image.ts";
import { PHASES, describeKill, type Kill, type Phase, type Role } from "./plan.ts";
import { MainProcess, killNow, orphans, rolesAreBack, soleRoles } from "./roles.ts";
import { PROGRAM, subjectOf, type Running, type Subject, type SubjectImage } from "./subject.ts";

/** Small: filling passes, readers and evictions all meet its bound. */
const QUOTA_BYTES = 16 * 1024 * 1024;
const BASE = "busybox";
const READ_LIMIT_SECONDS = 30;
/** Every so many rounds an image of the lab instead of a made one. */
const LAB_ROUNDS: readonly (readonly [every: number, at: number, image: LabImageName])[] = [
  [16, 3, "edge"],
  [32, 10, "debian"],
];
const QUIET_TIMEOUT_MS = 15_000;
const AGAIN_TIMEOUT_MS = 20_000;
const POLL_MS = 100;
const LIST = ["snapshots", "--snapshotter", SNAPSHOTTER, "ls"];
/** How much longer the images of Debian take. */
const LARGE_FACTOR: Readonly<Record<Phase, number>> = { pull: 4, start: 1, read: 3, remove: 1 };

export interface KillSessionOptions {
  readonly seed: number;
  readonly mode?: MountMode;
}

interface Parts {
  readonly base: Registry;
  readonly made: Registry;
  readonly daemon: FaasnetDaemon;
  readonly main: MainProcess;
  readonly containerd: Containerd;
}

interface Round {
  readonly number: number;
  readonly subject: Subject;
  /** Containers or views; each lives through kills that leave the keeper alone. */
  running: Running[];
}

export class KillSession {
  readonly #lab: Lab;
  readonly #options: KillSessionOptions;
  readonly #base: Registry;
  readonly #made: Registry;
  readonly daemon: FaasnetDaemon;
  readonly #containerd: Containerd;
  /** Of a made image, without a kill. */
  readonly #measuredMs = new Map<Phase, number>();
  #fresh: FileCounts = { main: 0, "image-service": 0, keeper: 0 };
  #busybox: TreeManifest = new Map();
  #baseChainIds: readonly string[] = [];
  #isFuseMode = false;
  #round: Round | undefined;
  readonly #main: MainProcess;
  /** After the last kill. */
  #committed: readonly string[] | undefined;
  #roles: Readonly<Record<Role, number>> | undefined;

  private constructor(lab: Lab, options: KillSessionOptions, parts: Parts) {
    this.#lab = lab;
    this.#options = options;
    this.#base = parts.base;
    this.#made = parts.made;
    this.daemon = parts.daemon;
    this.#containerd = parts.containerd;
    this.#main = parts.main;
  }

  static async start(lab: Lab, options: KillSessionOptions): Promise<KillSession> {
    const base = await Registry.start(lab);
    const made = await Registry.start(lab, { storage: "empty" });
    const daemon = await FaasnetDaemon.create(lab, {
      mode: options.mode ?? "auto",
      quotaBytes: QUOTA_BYTES,
      readLimitSeconds: READ_LIMIT_SECONDS,
      knownHosts: [base.address, made.address],
    });
    const main = new MainProcess(lab, daemon); // ends after containerd and its containers
    const containerd = await Containerd.start(lab, {
      line: "2",
      registry: base.address,
      snapshotter: { name: SNAPSHOTTER, address: daemon.address, root: daemon.root },
    });
    await daemon.start(containerd.address);
    const session = new KillSession(lab, options, { base, made, daemon, main, containerd });
    session.#isFuseMode = (await daemon.status()).mode === "fuse";
    session.#baseChainIds = (await imageFacts(base, BASE)).chainIds;
    session.#busybox = await expectedTree(lab, base, BASE);
    await session.#pullBase();
    await session.#measure();
    session.#fresh = await countFiles(daemon);
    return session;
  }

  /** One kill of the plan, in order; throws an error that says what was not as it must be. */
  async kill(kill: Kill): Promise<void> {
    try {
      const round = await this.#roundOf(kill.round);
      await this.#kill(kill, round);
    } catch (error) {
      throw new Error(`${describeKill(kill)}: ${String(error)}`, { cause: error });
    }
  }

  /** Ends all containers, removes all images: then nothing is left but three idle processes. */
  async checkpoint(): Promise<void> {
    this.#committed = undefined;
    this.#roles = undefined;
    await this.#endRound();
    await this.#containerd.ctr(["image", "rm", "--sync", this.#base.reference(BASE)]);
    let found: readonly string[] = [];
    const isQuiet = async (): Promise<boolean> => {
      const snapshots = (await this.#snapshots()).map(({ name }) => `snapshot ${name}`);
      const jobs = (await orphans(this.#lab)).map((entry) => `process ${entry}`);
      found = [...snapshots, ...jobs, ...(await leaksOfIdle(this.daemon, this.#fresh))];
      if (found.length > 0) await this.#collectGarbage();
      return found.length === 0;
    };
    const wait = { timeoutMs: QUIET_TIMEOUT_MS, everyMs: POLL_MS };
    await eventually("nothing is left", isQuiet, wait).catch((error: unknown) => {
      throw new Error(`left behind: ${found.join("; ")}`, { cause: error });
    });
    await this.#pullBase();
  }

  /** A clean stop leaves nothing at all. */
  async stop(): Promise<void> {
    await this.#containerd.ctr(["image", "rm", "--sync", this.#base.reference(BASE)], {
      allowFailure: true,
    });
    await this.#main.stop();
    let found: readonly string[] = [];
    const isGone = async (): Promise<boolean> => {
      found = await leaksOfStopped(this.daemon);
      return found.length === 0;
    };
    const wait = { timeoutMs: QUIET_TIMEOUT_MS, everyMs: POLL_MS };
    await eventually("nothing is left", isGone, wait).catch((error: unknown) => {
      throw new Error(`left behind by the stop: ${found.join("; ")}`, { cause: error });
    });
  }

  async #roundOf(number: number): Promise<Round> {
    if (this.#round?.number === number) return this.#round;
    await this.#endRound();
    const subject = await this.#subject(number);
    this.#round = { number, subject, running: [] };
    return this.#round;
  }

  async #subject(round: number): Promise<Subject> {
    const lab = this.#lab;
    const site = { lab, containerd: this.#containerd, isFuseMode: () => this.#isFuseMode };
    const named = LAB_ROUNDS.find(([every, at]) => round % every === at)?.[2];
    const files = filesOf(this.#busybox);
    if (named === undefined) {
      const name = `made-${this.#options.seed}-${round}`;
      const base = { registry: this.#base, repository: BASE };
      const image = await pushMadeImage(this.#made, name, base, this.#options.seed + round);
      const all = new Map([...files, ...image.files]);
      const reference = this.#made.reference(name);
      return subjectOf({ reference, facts: image.facts, files: all, tree: undefined }, site);
    }
    const image: SubjectImage = {
      reference: this.#base.reference(named),
      facts: await imageFacts(this.#base, named),
      files: undefined,
      tree: await expectedTree(lab, this.#base, named),
    };
    return subjectOf(image, site);
  }

  /** Its layers are below all made images; it stays, so that there is always something to lose. */
  async #pullBase(): Promise<void> {
    const reference = this.#base.reference(BASE);
    await this.#containerd.pull(reference, { snapshotter: SNAPSHOTTER });
  }

  /** Without kills. */
  async #endRound(): Promise<void> {
    const round = this.#round;
    if (round === undefined) return;
    this.#round = undefined;
    await endAll(round);
    await this.#containerd.ctr(["image", "rm", "--sync", round.subject.reference], {
      allowFailure: true,
    });
  }

  async #kill(kill: Kill, round: Round): Promise<void> {
    const committed = this.#committed ?? (await this.#listCommitted());
    const before = this.#roles ?? (await soleRoles(this.daemon));
    this.#roles = undefined;
    const lengthMs = this.#lengthMs(kill.phase, round);
    const work = this.#work(kill.phase, round).then(
      () => undefined,
      (error: unknown) => ({ error }),
    );
    await sleep(lengthMs * kill.moment);
    const { restarted } = await this.#killVictims(kill, before);
    const failed = await work;
    await restarted;
    const dead = new Set(kill.victims.map((role) => before[role]));
    this.#roles = await rolesAreBack(this.daemon, dead);
    if (kill.victims.includes("main")) await this.#containerdIsBack();
    if (failed !== undefined) await this.#again(kill, round, failed.error);
    await this.#checkCommitted(kill, round, committed);
    await this.#checkReaders(kill, round);
  }

  /** Resolves when all victims are dead; `restarted` when main, if it was one, serves again. */
  async #killVictims(
    kill: Kill,
    pids: Readonly<Record<Role, number>>,
  ): Promise<{ readonly restarted: Promise<void> }> {
    let restarted: Promise<void> = Promise.resolve();
    for (const [at, role] of kill.victims.entries()) {
      if (at > 0) await sleep(kill.gapMs);
      if (role === "main") {
        await this.#main.kill();
        restarted = this.#main.restart();
      } else killNow(pids[role]);
    }
    restarted.catch(() => undefined); // awaited a little later
    return { restarted };
  }

  async #work(phase: Phase, round: Round): Promise<void> {
    const { subject } = round;
    if (phase === "pull") await subject.pull();
    else if (phase === "start") round.running.push(await subject.start());
    else if (phase === "read") await readAll(round);
    else {
      await endAll(round);
      await subject.remove();
    }
  }

  /** What failed although its helpers came back is wrong; what was cut off is done once more. */
  async #again(kill: Kill, round: Round, error: unknown): Promise<void> {
    const isKeeper = kill.victims.includes("keeper");
    const isMain = kill.victims.includes("main");
    // A reader whose keeper died gets EIO; the image is read again below, by a new container.
    if (kill.phase === "read" && isKeeper && !(error instanceof WrongBytes)) return;
    const mayFail = kill.phase === "start" ? isKeeper || isMain : kill.phase !== "read" && isMain;
    if (!mayFail) throw error;
    try {
      await this.#work(kill.phase, round);
    } catch (second) {
      throw new Error(`failed again: ${String(second)}; first: ${String(error)}`, {
        cause: second,
      });
    }
  }

  /** What containerd knew as committed is there still; what was pulled or removed is so. */
  async #checkCommitted(kill: Kill, { subject }: Round, before: Iterable<string>): Promise<void> {
    const base = new Set(this.#baseChainIds);
    const own = new Set(subject.chainIds.filter((name) => !base.has(name)));
    if (kill.phase === "remove") await this.#collectGarbage();
    const now = new Set(await this.#listCommitted());
    this.#committed = [...now];
    const isRemoved = kill.phase === "remove";
    const lost = [...before].filter((name) => !now.has(name) && !(isRemoved && own.has(name)));
    if (lost.length > 0) throw new Error(`lost snapshots: ${lost.join(", ")}`);
    const missing = [...own].filter((name) => !now.has(name));
    if (!isRemoved && missing.length > 0) throw new Error(`not pulled: ${missing.join(", ")}`);
    const kept = [...own].filter((name) => now.has(name));
    if (isRemoved && kept.length > 0) throw new Error(`not removed: ${kept.join(", ")}`);
  }

  /** Those of before go on, unless the keeper died; a new one sees all bytes right. */
  async #checkReaders(kill: Kill, round: Round): Promise<void> {
    if (kill.phase === "remove") return;
    if (kill.victims.includes("keeper")) await endAll(round);
    if (round.running.length === 0) round.running.push(await round.subject.start());
    // Before the phase "read" nothing is read but what a start needs: that phase finds it cold.
    if (kill.phase === "read") await readAll(round);
  }

  #lengthMs(phase: Phase, { subject }: Round): number {
    const made = this.#measuredMs.get(phase) ?? 0;
    return made * (subject.isLarge ? LARGE_FACTOR[phase] : 1);
  }

  async #measure(): Promise<void> {
    const round = { number: -1, subject: await this.#subject(-1), running: [] };
    for (const phase of PHASES) {
      const started = performance.now();
      await this.#work(phase, round);
      this.#measuredMs.set(phase, performance.now() - started);
    }
    await this.#collectGarbage();
  }

  get measured(): string {
    return [...this.#measuredMs].map(([phase, ms]) => `${phase} ${Math.round(ms)} ms`).join(", ");
  }

  async #containerdIsBack(): Promise<void> {
    const answers = async (): Promise<boolean> =>
      (await this.#containerd.ctr(LIST, { allowFailure: true, timeoutMs: 10_000 })).status === 0;
    const wait = { timeoutMs: AGAIN_TIMEOUT_MS, everyMs: POLL_MS };
    await eventually("containerd reaches the snapshotter again", answers, wait);
  }

  async #snapshots(): Promise<readonly { readonly name: string; readonly kind: string }[]> {
    const { stdout } = await this.#containerd.ctr(LIST);
    const [, ...lines] = stdout.trim().split("\n");
    return lines.map((line) => {
      const fields = line.trim().split(/\s+/);
      return { name: fields[0] ?? "", kind: fields.at(-1) ?? "" };
    });
  }

  async #listCommitted(): Promise<readonly string[]> {
    const all = await this.#snapshots();
    return all.filter(({ kind }) => kind === "Committed").map(({ name }) => name);
  }

  async #collectGarbage(): Promise<void> {
    await this.#containerd.ctr(["content", "prune", "references"]);
  }
}

async function readAll({ running }: Round): Promise<void> {
  for (const reader of running) {
    const { wrong, failure } = await reader.read();
    if (wrong.length > 0) throw new WrongBytes(`wrong bytes: ${wrong.join("; ")}`);
    if (failure !== undefined) throw new Error(failure);
  }
}

/** Also what came up by halves, or was half removed: it may be asked again. */
async function endAll(round: Round): Promise<void> {
  for (const running of round.running) await running.end();
  round.running = [];
}

class WrongBytes extends Error {}

function filesOf(tree: TreeManifest): Map<string, string> {
  const files = new Map<string, string>();
  for (const [path, { type, nlink, sha256 }] of tree) {
    const absolute = path.replace(/^\./, "");
    if (type === "f" && (nlink === "1" || absolute === PROGRAM)) files.set(absolute, sha256);
  }
  return files;
}
