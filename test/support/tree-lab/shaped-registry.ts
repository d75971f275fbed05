/**
 * docker-registry in its own namespace behind the shaped link, with its own access log as the
 * witness: a line for each request with the bytes of the body that were sent.
 */
import { open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  Server,
  parseAccessLog,
  registryStorage,
  run,
  type AccessEntry,
  type Lab,
} from "../lab/index.ts";
import { hostPort, type Host, type NodeNetwork } from "./network.ts";

const PORT = 5000;
/** A request is logged after its answer was sent. */
const LOG_DELAY_MS = 200;
/** TCP_LISTEN in /proc/net/tcp. Source: Linux include/net/tcp_states.h. */
const LISTEN = "0A";

export class ShapedRegistry implements AsyncDisposable {
  /** host:port, as in image references. */
  readonly address: string;
  readonly #network: NodeNetwork;
  readonly #folder: string;
  readonly #env: Readonly<Record<string, string>>;
  #server: Server | undefined;

  private constructor(lab: Lab, network: NodeNetwork, folder: string) {
    this.#network = network;
    this.#folder = folder;
    this.#env = lab.env;
    this.address = hostPort(network.registry.address, PORT);
  }

  static async start(lab: Lab, network: NodeNetwork): Promise<ShapedRegistry> {
    const folder = await lab.makeFolder("registry");
    const registry = lab.use(new ShapedRegistry(lab, network, folder));
    const config = [
      "version: 0.1",
      "log: { level: error }",
      "storage:",
      `  filesystem: { rootdirectory: ${registryStorage} }`,
      "  redirect: { disable: true }",
      "  maintenance: { readonly: { enabled: true } }",
      `http: { addr: "${registry.address}" }`,
      "",
    ];
    await writeFile(join(folder, "config.yml"), config.join("\n"));
    await registry.start();
    return registry;
  }

  reference(repository: string): string {
    return `${this.address}/${repository}:1`;
  }

  async start(): Promise<void> {
    const host = this.#network.registry;
    const config = join(this.#folder, "config.yml");
    const [command, ...args] = [...host.wrapper, "docker-registry", "serve", config];
    this.#server = await Server.start("registry", command, args, {
      logFile: this.#logFile,
      env: this.#env,
      ready: async () => isListening(host, PORT),
    });
  }

  get #logFile(): string {
    return join(this.#folder, "log");
  }

  get pid(): number {
    return this.#server?.pid ?? -1;
  }

  /** Gone: connections are refused. */
  async stop(): Promise<void> {
    await this.#server?.kill();
    this.#server = undefined;
  }

  /** Silent: what is asked is accepted by the kernel and not answered. */
  pause(): void {
    this.#server?.signal("SIGSTOP");
  }

  resume(): void {
    this.#server?.signal("SIGCONT");
  }

  /** From now on it sends so fast at most, as tc writes it: `8mbit` is 1 MB/s. */
  async limitRate(rate: string): Promise<void> {
    await this.#network.shapeRegistry(rate);
  }

  /** Silent for so long, then at that rate. */
  async stall(ms: number, thenRate: string): Promise<void> {
    this.pause();
    await this.limitRate(thenRate);
    await sleep(ms);
    this.resume();
  }

  /** A place in the access log; hand it to `entries` later. */
  async mark(): Promise<number> {
    await sleep(LOG_DELAY_MS);
    const file = await open(this.#logFile, "r");
    try {
      return (await file.stat()).size;
    } finally {
      await file.close();
    }
  }

  /** Every request since a mark, by whomever. */
  async entries(since: number): Promise<readonly AccessEntry[]> {
    await sleep(LOG_DELAY_MS);
    return parseAccessLog((await readFile(this.#logFile)).subarray(since).toString("latin1"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.resume();
    await this.#server?.stop();
    this.#server = undefined;
  }
}

/** Whether anything listens on the port there, in either family. */
async function isListening(host: Host, port: number): Promise<boolean> {
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  const [command, ...args] = [...host.wrapper, "cat", "/proc/net/tcp", "/proc/net/tcp6"];
  const { stdout } = await run(command, args);
  const rows = stdout.split("\n").map((line) => line.trim().split(/\s+/));
  return rows.some((row) => row[1]?.endsWith(`:${hex}`) === true && row[3] === LISTEN);
}
