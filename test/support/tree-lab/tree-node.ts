/** One node: a real daemon in its own network namespace, with root and state of its own. */
import { cp, mkdir, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connectControl, type ControlConnection } from "../../../src/control/index.ts";
import type { PeersReport, TreesReport } from "../../../src/daemon/index.ts";
import {
  Server,
  eventually,
  mountsUnder,
  programPath,
  run,
  unmountUnder,
  type DaemonStatus,
  type Lab,
  type LabImageName,
  type MountMode,
  type RunResult,
} from "../lab/index.ts";
import { runContainer, type ContainerOptions, type ContainerResult } from "./container.ts";
import { hostPort, type Host } from "./network.ts";

const READY_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 15_000;
const LEAVE_TIMEOUT_MS = 20_000;
const CALL_TIMEOUT_MS = 180_000;
const GOSSIP_PORT = 7946;
const EXCHANGE_PORT = 7947;
/** Each node has a loopback interface of its own. */
const MIRROR_ADDRESS = "127.0.0.1:7948";
/** What a root folder knows of images; its cache is not taken along. */
const MAP_FOLDERS = ["layers", "chains", "images"] as const;

export type NodeRole = "main" | "image-service" | "keeper";

export interface PeerSettings {
  readonly keyFile: string;
  /** `address:port` of the nodes that a newcomer asks. */
  readonly seeds: readonly string[];
  readonly zone?: string;
  /** Another name than its own, as when a machine was copied with its configuration. */
  readonly name?: string;
}

export interface NodeOptions {
  readonly peer: PeerSettings;
  /** False: `[peer]` is left out, and it is a single node. */
  readonly hasPeers: boolean;
  readonly hostsDir: string;
  readonly mode?: MountMode;
  readonly readLimitSeconds?: number;
  readonly logLevel?: "info" | "debug";
  /** More of the process environment, e.g. a preloaded module for a node that misbehaves. */
  readonly env?: Readonly<Record<string, string>>;
  /** Another build of the program. */
  readonly program?: string;
}

export interface NodeMount {
  readonly image: LabImageName;
  readonly path: string;
  readonly manifestDigest: string;
  readonly chainId: string;
}

export function gossipAddress(address: string): string {
  return hostPort(address, GOSSIP_PORT);
}

export class TreeNode implements AsyncDisposable {
  readonly index: number;
  readonly host: Host;
  readonly folder: string;
  readonly #labEnv: Readonly<Record<string, string>>;
  #options: NodeOptions;
  #server: Server | undefined;
  #connection: ControlConnection | undefined;

  private constructor(
    index: number,
    host: Host,
    folder: string,
    options: NodeOptions,
    labEnv: Readonly<Record<string, string>>,
  ) {
    this.index = index;
    this.host = host;
    this.folder = folder;
    this.#options = options;
    this.#labEnv = labEnv;
  }

  static async create(
    lab: Lab,
    index: number,
    host: Host,
    options: NodeOptions,
  ): Promise<TreeNode> {
    const folder = await lab.makeFolder("d");
    const node = lab.use(new TreeNode(index, host, folder, options, lab.env));
    await mkdir(node.root, { recursive: true });
    return node;
  }

  /** Its member id. */
  get name(): string {
    return `n${this.index + 1}`;
  }

  get root(): string {
    return join(this.folder, "root");
  }

  get state(): string {
    return join(this.folder, "state");
  }

  get logFile(): string {
    return join(this.folder, "log");
  }

  get gossipAddress(): string {
    return gossipAddress(this.host.address);
  }

  /** `address:port` of its block server. */
  get exchangeAddress(): string {
    return hostPort(this.host.address, EXCHANGE_PORT);
  }

  /** The Snapshots service's socket, for a containerd. */
  get snapshotterAddress(): string {
    return join(this.state, "faasnet.sock");
  }

  get peer(): PeerSettings {
    return this.#options.peer;
  }

  /** From its next start on. */
  configure(change: Partial<NodeOptions>): void {
    this.#options = { ...this.#options, ...change };
  }

  #config(): readonly string[] {
    const { hostsDir, mode = "auto", readLimitSeconds = 60, logLevel = "info" } = this.#options;
    return [
      `root = "${this.root}"`,
      `state = "${this.state}"`,
      `containerd_address = "${join(this.folder, "no-containerd.sock")}"`,
      `log_level = "${logLevel}"`,
      "[mount]",
      `mode = "${mode}"`,
      "[cache]",
      `quota_bytes = ${8 * 1024 ** 3}`,
      "[background]",
      "enabled = false",
      "[read]",
      `limit_seconds = ${readLimitSeconds}`,
      "[registry]",
      `hosts_dir = "${hostsDir}"`,
      ...this.#peerSection(),
    ];
  }

  #peerSection(): readonly string[] {
    const { peer, hasPeers } = this.#options;
    if (!hasPeers) return [];
    return [
      "[peer]",
      "enabled = true",
      `name = "${peer.name ?? this.name}"`,
      `key_file = "${peer.keyFile}"`,
      `bind = "${this.gossipAddress}"`,
      `advertise = "${this.gossipAddress}"`,
      `exchange_port = ${EXCHANGE_PORT}`,
      `mirror = "${MIRROR_ADDRESS}"`,
      `seeds = [${peer.seeds.map((seed) => `"${seed}"`).join(", ")}]`,
      ...(peer.zone === undefined ? [] : [`zone = "${peer.zone}"`]),
    ];
  }

  get isRunning(): boolean {
    return this.#server?.isRunning === true;
  }

  /** Resolves when its image service is ready. */
  async start(): Promise<void> {
    const configFile = join(this.folder, "config.toml");
    await writeFile(configFile, `${this.#config().join("\n")}\n`);
    const program = this.#options.program ?? programPath;
    const [command, ...args] = [...this.host.wrapper, program, "daemon", "--config", configFile];
    this.#server = await Server.start(`daemon of ${this.name}`, command, args, {
      logFile: this.logFile,
      env: { ...this.#labEnv, ...this.#options.env },
      ready: async () => this.#isReady(),
      readyTimeoutMs: READY_TIMEOUT_MS,
    });
  }

  async #isReady(): Promise<boolean> {
    try {
      return (await this.status()).ready;
    } catch {
      await sleep(50); // its start costs a core; asking often would cost another
      return false;
    }
  }

  /** One connection for all calls; another one after the image service was started again. */
  async #call(method: string, request: object): Promise<unknown> {
    const signal = AbortSignal.timeout(CALL_TIMEOUT_MS);
    this.#connection ??= await connectControl(join(this.state, "image.sock"), {}, { signal });
    try {
      return await this.#connection.call(method, request, { signal });
    } catch (error) {
      await this.#disconnect();
      throw error;
    }
  }

  async #disconnect(): Promise<void> {
    const connection = this.#connection;
    this.#connection = undefined;
    await connection?.[Symbol.asyncDispose]();
  }

  async #report<T>(method: string, request: object = {}): Promise<T> {
    const { json } = (await this.#call(method, request)) as { readonly json: string };
    return JSON.parse(json) as T;
  }

  async status(): Promise<DaemonStatus> {
    return this.#report<DaemonStatus>("Image.Status");
  }

  async peers(): Promise<PeersReport> {
    return this.#report<PeersReport>("Image.Peers");
  }

  async trees(): Promise<TreesReport> {
    return this.#report<TreesReport>("Image.Trees", { image: "" });
  }

  /** Its maps made or found, and its tree mounted. */
  async mount(image: LabImageName, reference: string): Promise<NodeMount> {
    const ensured = (await this.#call("Image.Ensure", { reference })) as {
      readonly manifestDigest: string;
      readonly layers: readonly { readonly chainId: string }[];
    };
    const chainId = ensured.layers.at(-1)?.chainId ?? "";
    const mounted = (await this.#call("Image.Mount", { chainId })) as { readonly path: string };
    return { image, path: mounted.path, manifestDigest: ensured.manifestDigest, chainId };
  }

  /** Runs a container of a mounted image to its end. */
  async run(
    { image, path: lower }: NodeMount,
    command: readonly string[],
    options: ContainerOptions = {},
  ): Promise<ContainerResult> {
    return runContainer({ folder: this.folder, image, lower, command }, this.#labEnv, options);
  }

  /** Unmounts it: its containers have ended. */
  async release({ chainId }: NodeMount): Promise<void> {
    await this.#call("Image.Release", { chainId });
  }

  async clearCache(): Promise<void> {
    await this.#call("Image.CacheClear", {});
  }

  /** Of a node that does not run: it is new again. */
  async wipeRoot(): Promise<void> {
    await rm(this.root, { recursive: true, force: true });
  }

  /** Of a node that does not run: all blocks go, maps stay. */
  async wipeCache(): Promise<void> {
    await rm(join(this.root, "cache"), { recursive: true, force: true });
  }

  /** The program's command line, for this node. */
  async cli(args: readonly string[]): Promise<RunResult> {
    return run(programPath, [...args, "--root", this.root, "--state", this.state], {
      env: this.#labEnv,
    });
  }

  /** What another node knows of images, before this one starts. */
  async takeMaps(from: TreeNode): Promise<void> {
    for (const name of MAP_FOLDERS) {
      await cp(join(from.root, name), join(this.root, name), { recursive: true });
    }
  }

  /** Bytes of the layer maps in its root folder. */
  async mapBytes(): Promise<number> {
    const folder = join(this.root, "layers");
    const names = (await readdir(folder)).filter((name) => name.endsWith(".map"));
    const files = await Promise.all(names.map(async (name) => stat(join(folder, name))));
    return files.reduce((sum, { size }) => sum + size, 0);
  }

  /** Lines of its log that are worse than a warning. */
  async logErrors(): Promise<readonly string[]> {
    const lines = (await readFile(this.logFile, "utf8")).split("\n");
    return lines.filter((line) => /^\{"level":"(error|fatal)"/.test(line));
  }

  /** What all its roles have logged of one event. */
  async logLines(event: string): Promise<readonly Readonly<Record<string, unknown>>[]> {
    const text = await readFile(this.logFile, "utf8");
    return text
      .split("\n")
      .filter((line) => line.startsWith("{") && line.includes(`"${event}"`))
      .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>);
  }

  /** The processes of the roles; take it before a fault: it looks at all processes. */
  async roles(): Promise<ReadonlyMap<NodeRole, number>> {
    const found = new Map<NodeRole, number>();
    for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
      const command = await readFile(`/proc/${pid}/cmdline`, "latin1").catch(() => "");
      if (!command.includes(`${this.folder}/`)) continue;
      if (command.includes("/image-service-process.js")) found.set("image-service", Number(pid));
      else if (command.includes("/keeper-process.js")) found.set("keeper", Number(pid));
      else if (command.includes("\0daemon\0")) found.set("main", Number(pid));
    }
    return found;
  }

  get pid(): number {
    return this.#server?.pid ?? -1;
  }

  /** A clean stop, by SIGTERM; resolves when nothing of it is left. Its containers have ended. */
  async stop(): Promise<void> {
    await this.#disconnect();
    await this.#server?.stop(STOP_TIMEOUT_MS);
    this.#server = undefined;
    await eventually(
      `all roles and mounts of ${this.name} are gone`,
      async () => (await mountsUnder(this.folder)).length === 0 && (await this.roles()).size === 0,
      { timeoutMs: LEAVE_TIMEOUT_MS, everyMs: 100 },
    );
  }

  /** Of a node that was killed as a whole: what the kernel still has of it goes too. */
  async forget(): Promise<void> {
    await this.#disconnect();
    await this.#server?.kill();
    this.#server = undefined;
    await unmountUnder(this.folder);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server !== undefined) await this.stop();
  }
}
