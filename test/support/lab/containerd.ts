/** A private containerd: own root, state and sockets; the machine's own is not touched. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Lab } from "./lab.ts";
import { containerdBinaries, type ContainerdLine } from "./paths.ts";
import { Server, run, type RunOptions, type RunResult } from "./process.ts";

export interface ProxySnapshotter {
  readonly name: string;
  /** Its socket. */
  readonly address: string;
  /** Exported as its root, for CRI's image file system figures. */
  readonly root?: string;
}

export interface ContainerdOptions {
  readonly line: ContainerdLine;
  readonly snapshotter?: ProxySnapshotter;
  /** Where CRI's pause image is: host:port of a registry of the lab. */
  readonly registry?: string;
  /** CRI uses the snapshotter and passes on what the image is (default: when there is one). */
  readonly criSnapshotter?: boolean;
  /** What it and ctr are started by: `nsenter --net=…` puts them into a network namespace. */
  readonly wrapper?: readonly string[];
}

interface Layout {
  readonly folder: string;
  readonly root: string;
  readonly state: string;
}

function layoutOf(folder: string): Layout {
  return { folder, root: join(folder, "root"), state: join(folder, "state") };
}

function proxyPlugin(snapshotter: ProxySnapshotter): readonly string[] {
  const exports = snapshotter.root === undefined ? [] : [`    root = "${snapshotter.root}"`];
  return [
    `[proxy_plugins.${snapshotter.name}]`,
    '  type = "snapshot"',
    `  address = "${snapshotter.address}"`,
    `  [proxy_plugins.${snapshotter.name}.exports]`,
    ...exports,
    '    enable_remote_snapshot_annotations = "true"',
  ];
}

/** containerd 1.x: one CRI plugin; it writes to /opt/containerd unless told otherwise. */
function configVersion2(layout: Layout, options: ContainerdOptions): readonly string[] {
  const cri = 'plugins."io.containerd.grpc.v1.cri"';
  const snapshotter = options.criSnapshotter === false ? undefined : options.snapshotter;
  return [
    "version = 2",
    '[plugins."io.containerd.internal.v1.opt"]',
    `  path = "${join(layout.folder, "opt")}"`,
    ...(options.line === "1.6" ? [] : ['[plugins."io.containerd.nri.v1.nri"]', "  disable = true"]),
    `[${cri}]`,
    "  restrict_oom_score_adj = true",
    ...(options.registry === undefined ? [] : [`  sandbox_image = "${options.registry}/pause:1"`]),
    ...(snapshotter === undefined
      ? []
      : [
          `[${cri}.containerd]`,
          `  snapshotter = "${snapshotter.name}"`,
          "  disable_snapshot_annotations = false",
        ]),
  ];
}

function configVersion3(layout: Layout, options: ContainerdOptions): readonly string[] {
  const snapshotter = options.criSnapshotter === false ? undefined : options.snapshotter;
  const unpack = (name: string): readonly string[] => [
    '[[plugins."io.containerd.transfer.v1.local".unpack_config]]',
    '  platform = "linux"',
    `  snapshotter = "${name}"`,
  ];
  return [
    "version = 3",
    '[plugins."io.containerd.nri.v1.nri"]',
    "  disable = true",
    '[plugins."io.containerd.internal.v1.opt"]',
    `  path = "${join(layout.folder, "opt")}"`,
    '[plugins."io.containerd.cri.v1.runtime"]',
    "  restrict_oom_score_adj = true",
    '[plugins."io.containerd.cri.v1.images"]',
    ...(snapshotter === undefined ? [] : [`  snapshotter = "${snapshotter.name}"`]),
    ...(options.registry === undefined
      ? []
      : [
          '[plugins."io.containerd.cri.v1.images".pinned_images]',
          `  sandbox = "${options.registry}/pause:1"`,
        ]),
    // The first entry of a platform is what pulls that name no snapshotter go to.
    ...unpack("overlayfs"),
    ...(options.snapshotter === undefined ? [] : unpack(options.snapshotter.name)),
  ];
}

export function containerdConfig(folder: string, options: ContainerdOptions): string {
  const layout = layoutOf(folder);
  const common = [
    `root = "${layout.root}"`,
    `state = "${layout.state}"`,
    "[grpc]",
    `  address = "${join(folder, "ctd.sock")}"`,
    "[debug]",
    '  level = "info"',
  ];
  const [version = "", ...plugins] =
    options.line === "2" ? configVersion3(layout, options) : configVersion2(layout, options);
  const proxy = options.snapshotter === undefined ? [] : proxyPlugin(options.snapshotter);
  return [version, ...common, ...proxy, ...plugins, ""].join("\n");
}

export interface PullOptions extends RunOptions {
  readonly snapshotter?: string;
  readonly namespace?: string;
}

export interface RunContainerOptions extends RunOptions {
  readonly snapshotter?: string;
  readonly namespace?: string;
  /** More arguments of `ctr run`, before the image. */
  readonly extra?: readonly string[];
}

let containers = 0;

export class Containerd implements AsyncDisposable {
  readonly line: ContainerdLine;
  readonly folder: string;
  /** The socket: an absolute path. */
  readonly address: string;
  readonly #binaries: string;
  readonly #env: Readonly<Record<string, string>>;
  readonly #wrapper: readonly string[];
  #server: Server | undefined;

  private constructor(options: ContainerdOptions, folder: string, binaries: string, lab: Lab) {
    this.line = options.line;
    this.#wrapper = options.wrapper ?? [];
    this.folder = folder;
    this.address = join(folder, "ctd.sock");
    this.#binaries = binaries;
    this.#env = lab.env;
  }

  static async start(lab: Lab, options: ContainerdOptions): Promise<Containerd> {
    const binaries = containerdBinaries(options.line);
    if (binaries === undefined) throw new Error(`containerd ${options.line}: run scripts/setup`);
    const folder = await lab.makeFolder(`c${options.line}`);
    const containerd = new Containerd(options, folder, binaries, lab);
    await Promise.all(["root", "state", "opt"].map((name) => mkdir(join(folder, name))));
    await writeFile(join(folder, "config.toml"), containerdConfig(folder, options));
    lab.use(containerd);
    await containerd.start();
    return containerd;
  }

  get logFile(): string {
    return join(this.folder, "log");
  }

  get pid(): number {
    return this.#server?.pid ?? -1;
  }

  async start(): Promise<void> {
    // The matching shim is found through PATH.
    const path = `${this.#binaries}:${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`;
    const program = join(this.#binaries, "containerd");
    const [command, ...args] = [...this.#wrapper, program];
    const config = ["--config", join(this.folder, "config.toml")];
    this.#server = await Server.start(`containerd ${this.line}`, command, [...args, ...config], {
      logFile: this.logFile,
      env: { ...this.#env, PATH: path },
      ready: async () =>
        (await this.ctr(["version"], { allowFailure: true, timeoutMs: 2000 })).status === 0,
    });
  }

  /** Containers and their shims go on. */
  async stop(): Promise<void> {
    await this.#server?.stop();
    this.#server = undefined;
  }

  async kill(): Promise<void> {
    await this.#server?.kill();
    this.#server = undefined;
  }

  async ctr(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const env = { ...this.#env, ...options.env };
    const [command, ...before] = [...this.#wrapper, join(this.#binaries, "ctr")];
    return run(command, [...before, "--address", this.address, ...args], { ...options, env });
  }

  async pull(reference: string, options: PullOptions = {}): Promise<RunResult> {
    const { snapshotter = "overlayfs", namespace = "default", ...rest } = options;
    const command = ["image", "pull", "--plain-http", "--snapshotter", snapshotter, reference];
    return this.ctr(["--namespace", namespace, ...command], rest);
  }

  /** Runs a container to its end; its output is the result's. */
  async runContainer(
    reference: string,
    command: readonly string[],
    options: RunContainerOptions = {},
  ): Promise<RunResult> {
    const { snapshotter = "overlayfs", namespace = "default", extra = [], ...rest } = options;
    const args = ["run", "--rm", "--snapshotter", snapshotter, ...extra];
    return this.ctr(
      ["--namespace", namespace, ...args, reference, this.containerId(), ...command],
      rest,
    );
  }

  /** runc keeps all containers of the machine in one folder: names differ between labs. */
  containerId(): string {
    containers += 1;
    return `lab-${process.pid}-${this.line.replace(".", "")}-${containers}`;
  }

  async #endContainers(): Promise<void> {
    const list = async (args: readonly string[]): Promise<readonly string[]> => {
      const result = await this.ctr(args, { allowFailure: true, timeoutMs: 5000 });
      return result.stdout.split("\n").filter((line) => line !== "");
    };
    for (const namespace of await list(["namespaces", "ls", "-q"])) {
      const inside = ["--namespace", namespace];
      for (const task of await list([...inside, "tasks", "ls", "-q"])) {
        const end = ["tasks", "rm", "--force", task];
        await this.ctr([...inside, ...end], { allowFailure: true, timeoutMs: 10_000 });
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server?.isRunning === true) await this.#endContainers();
    await this.stop();
  }
}
