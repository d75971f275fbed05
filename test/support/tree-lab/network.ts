/**
 * A private network: each node and the registry in a network namespace of its own, on one bridge in
 * a namespace between them. No route leaves it, and nothing of the machine's own network is
 * touched.
 */
import { readdir } from "node:fs/promises";
import { run, type Lab } from "../lab/index.ts";

/** `fnt<pid>-<serial>-<n>`: the process tells whose it was when it is gone. */
const NAME = /^fnt(\d+)-\d+-\w+$/;
const NAMESPACES = "/run/netns";
const PORT_BUFFER = "256k";
/** What a registry port holds back at most: more would be a queue of seconds at low rates. */
const SHAPER_LATENCY = "20ms";

export interface NetworkOptions {
  readonly nodes: number;
  /** What the registry sends at most, as tc writes it: `1gbit` (the default), `8mbit`. */
  readonly registryRate?: string;
  /** What each node receives at most; without it there is no limit. */
  readonly nodeRate?: string;
  /** Of the addresses that programs are given; every host has one of each (default 4). */
  readonly family?: 4 | 6;
}

/** One host of the network. */
export interface Host {
  readonly namespace: string;
  /** Without brackets. */
  readonly address: string;
  /** What starts a program there. Mounts, files and processes stay the machine's. */
  readonly wrapper: readonly string[];
}

interface Rule {
  readonly host: Host;
  /** As iptables-restore reads it. */
  readonly text: string;
}

export interface WireBytes {
  readonly sent: number;
  readonly received: number;
}

/** `10.0.0.1:80`, `[fd00::1]:80` */
export function hostPort(address: string, port: number): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

let networks = 0;

export class NodeNetwork implements AsyncDisposable {
  readonly #prefix: string;
  readonly #family: 4 | 6;
  readonly #count: number;
  /** What is wrong now, by name. */
  readonly #faults = new Map<string, readonly Rule[]>();
  /** The rules of each host's packet filter. */
  readonly #filters = new Map<Host, string>();
  readonly registry: Host;
  readonly nodes: readonly Host[];

  private constructor(options: NetworkOptions) {
    networks += 1;
    this.#prefix = `fnt${process.pid}-${networks}`;
    this.#family = options.family ?? 4;
    this.#count = options.nodes;
    this.registry = this.#host("r", 0);
    this.nodes = Array.from({ length: options.nodes }, (_, index) =>
      this.#host(`${index + 1}`, index + 1),
    );
  }

  static async create(lab: Lab, options: NetworkOptions): Promise<NodeNetwork> {
    await clearAbandonedNetworks();
    const network = lab.use(new NodeNetwork(options));
    await network.#build(options);
    return network;
  }

  #host(name: string, number: number): Host {
    const namespace = `${this.#prefix}-${name}`;
    return {
      namespace,
      address: addressOf(number, this.#family),
      // Not `ip netns exec`: it makes a mount namespace, where the daemon's mounts are not seen.
      wrapper: ["nsenter", `--net=${NAMESPACES}/${namespace}`, "--"],
    };
  }

  get #hub(): string {
    return `${this.#prefix}-h`;
  }

  get #hosts(): readonly (readonly [port: string, host: Host, number: number])[] {
    return [
      ["r", this.registry, 0],
      ...this.nodes.map((host, index) => [`n${index + 1}`, host, index + 1] as const),
    ];
  }

  async #build({ registryRate = "1gbit", nodeRate }: NetworkOptions): Promise<void> {
    const names = [this.#hub, ...this.#hosts.map(([, host]) => host.namespace)];
    await ip(
      [],
      names.map((name) => `netns add ${name}`),
    );
    const hub = ["link set lo up", "link add br0 type bridge", "link set br0 up"];
    for (const [port, host] of this.#hosts) {
      hub.push(`link add ${port} type veth peer name eth0 netns ${host.namespace}`);
      hub.push(`link set ${port} master br0 up`);
    }
    await ip(["-n", this.#hub], hub);
    for (const [port, host, number] of this.#hosts) {
      await ip(
        ["-n", host.namespace],
        [
          "link set lo up",
          `addr add ${addressOf(number, 4)}/16 dev eth0`,
          `addr add ${addressOf(number, 6)}/64 dev eth0 nodad`,
          "link set eth0 up",
        ],
      );
      if (port !== "r" && nodeRate !== undefined) {
        await shape(this.#hub, port, nodeRate, PORT_BUFFER);
      }
    }
    await this.shapeRegistry(registryRate);
  }

  /** From now on the registry sends so fast at most, e.g. `8mbit` for 1 MB/s. */
  async shapeRegistry(rate: string): Promise<void> {
    // A burst of more than a tenth of a second would not feel like the rate.
    const burst = rate.endsWith("gbit") ? "512k" : "32k";
    await shape(this.registry.namespace, "eth0", rate, burst);
  }

  #node(index: number): Host {
    const host = this.nodes[index];
    if (host === undefined) throw new Error(`no node ${index} of ${this.#count}`);
    return host;
  }

  /** Pulls the node's cable, or puts it in again: nobody is told. */
  async setLink(index: number, state: "up" | "down"): Promise<void> {
    this.#node(index);
    await ip(["-n", this.#hub], [`link set n${index + 1} ${state}`]);
  }

  /** This share of the packets from and to the node is lost; 0 ends it. */
  async setLoss(index: number, share: number): Promise<void> {
    const lose = `-m statistic --mode random --probability ${share} -j DROP`;
    this.#faults.set(`loss ${index}`, share === 0 ? [] : this.#around(index, lose));
    await this.#apply();
  }

  /**
   * The nodes of `side` and all other nodes hear nothing of each other; both reach the registry.
   */
  async partition(side: readonly number[]): Promise<void> {
    const here = side.map((index) => this.#node(index));
    const there = this.nodes.filter((host) => !here.includes(host));
    const deaf = (hosts: readonly Host[], to: readonly Host[]): readonly Rule[] =>
      hosts.flatMap((host) =>
        to.map(({ address }) => ({ host, text: `-A INPUT -s ${address} -j DROP` })),
      );
    this.#faults.set("partition", [...deaf(here, there), ...deaf(there, here)]);
    await this.#apply();
  }

  /** Nothing of one protocol reaches the node or comes from it: a firewall before it. */
  async block(index: number, protocol: "udp" | "tcp"): Promise<void> {
    this.#faults.set(`block ${index} ${protocol}`, this.#around(index, `-p ${protocol} -j DROP`));
    await this.#apply();
  }

  /** Ends loss, partition and blocks, and puts every cable in. */
  async heal(): Promise<void> {
    this.#faults.clear();
    await this.#apply();
    const lines = this.nodes.map((_, index) => `link set n${index + 1} up`);
    await ip(["-n", this.#hub], lines);
  }

  /**
   * Always where packets come in: a rule where they leave would tell the sender (EPERM), which no
   * cable and no firewall elsewhere does.
   */
  #around(index: number, what: string): readonly Rule[] {
    const node = this.#node(index);
    const others = this.#hosts.map(([, host]) => host).filter((host) => host !== node);
    return [
      { host: node, text: `-A INPUT ! -i lo ${what}` },
      ...others.map((host) => ({ host, text: `-A INPUT -s ${node.address} ${what}` })),
    ];
  }

  /** Brings every host's packet filter to what the faults say, each in one step. */
  async #apply(): Promise<void> {
    const rules = [...this.#faults.values()].flat();
    const changed = this.#hosts.flatMap(([, host]) => {
      const texts = rules.filter((rule) => rule.host === host).map(({ text }) => text);
      const filter = texts.join("\n");
      if ((this.#filters.get(host) ?? "") === filter) return [];
      this.#filters.set(host, filter);
      return [{ host, texts }];
    });
    const restore = this.#family === 4 ? "iptables-restore" : "ip6tables-restore";
    const chains = [":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"];
    await Promise.all(
      changed.map(async ({ host, texts }) => {
        const [enter, ...args] = [...host.wrapper, restore];
        const input = ["*filter", ...chains, ...texts, "COMMIT", ""].join("\n");
        await run(enter, args, { input });
      }),
    );
  }

  /** The switch's end of the node's cable: everything from and to the node passes it. */
  cableOf(index: number): { readonly wrapper: readonly string[]; readonly port: string } {
    this.#node(index);
    const wrapper = ["nsenter", `--net=${NAMESPACES}/${this.#hub}`, "--"];
    return { wrapper, port: `n${index + 1}` };
  }

  /** What each node has sent and received so far, with all headers. */
  async wireBytes(): Promise<readonly WireBytes[]> {
    const shown = await run("ip", ["-n", this.#hub, "-json", "-stats", "link", "show"]);
    const links = JSON.parse(shown.stdout) as readonly {
      readonly ifname: string;
      readonly stats64: {
        readonly rx: { readonly bytes: number };
        readonly tx: { readonly bytes: number };
      };
    }[];
    const byName = new Map(links.map((link) => [link.ifname, link.stats64]));
    return this.nodes.map((_, index) => {
      const port = byName.get(`n${index + 1}`);
      // The port is the cable's other end: it receives what the node sends.
      return { sent: port?.rx.bytes ?? 0, received: port?.tx.bytes ?? 0 };
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const names = [...this.#hosts.map(([, host]) => host.namespace), this.#hub];
    await removeNamespaces(names);
  }
}

function addressOf(number: number, family: 4 | 6): string {
  // 198.18.0.0/15 is for benchmarks of networks (RFC 2544); the registry is 198.18.0.1.
  const low = number + 1;
  return family === 4 ? `198.18.${low >> 8}.${low & 255}` : `fd18::${low.toString(16)}`;
}

async function ip(options: readonly string[], lines: readonly string[]): Promise<void> {
  await run("ip", [...options, "-batch", "-"], { input: `${lines.join("\n")}\n` });
}

async function shape(namespace: string, port: string, rate: string, burst: string): Promise<void> {
  const limit = ["rate", rate, "burst", burst, "latency", SHAPER_LATENCY];
  const where = ["-n", namespace, "qdisc", "replace", "dev", port, "root", "tbf"];
  await run("tc", [...where, ...limit]);
}

async function removeNamespaces(names: readonly string[]): Promise<void> {
  const lines = names.map((name) => `netns del ${name}`).join("\n");
  await run("ip", ["-force", "-batch", "-"], { input: `${lines}\n`, allowFailure: true });
}

/** Namespaces whose process was killed. What ran in them was ended with its lab's folder. */
export async function clearAbandonedNetworks(): Promise<void> {
  const names = await readdir(NAMESPACES).catch(() => []);
  const abandoned = names.filter((name) => {
    const pid = Number(NAME.exec(name)?.[1] ?? 0);
    return pid !== 0 && pid !== process.pid && !isAlive(pid);
  });
  if (abandoned.length > 0) await removeNamespaces(abandoned);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false; // the lab needs root, so nobody's process is out of reach
  }
}
