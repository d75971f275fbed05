/** Many real nodes in this process: loopback UDP, TCP streams, the system's clock. */
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { systemRandom } from "../../../src/base/random.ts";
import type { Address } from "../../../src/peer/membership/member.ts";
import { PEER_NODE_DEFAULTS } from "../../../src/peer/node/config.ts";
import type { PeerNodeConfig } from "../../../src/peer/node/config.ts";
import { LocalPeerNode } from "../../../src/peer/node/local-peer-node.ts";
import type { LocalPeerNodeOptions } from "../../../src/peer/node/local-peer-node.ts";
import { MachineReader } from "../../../src/peer/node/machine.ts";
import { FakeTree } from "./fake-tree.ts";
import { TcpStreams } from "./tcp-streams.ts";

export const FLEET_KEY = new Uint8Array(32).fill(7);

export interface FleetNode {
  readonly node: LocalPeerNode;
  readonly tree: FakeTree;
}

export class NodeFleet implements AsyncDisposable {
  readonly streams: TcpStreams;
  readonly nodes = new Map<string, LocalPeerNode>();
  readonly #machine = new MachineReader(systemClock);

  static async open(): Promise<NodeFleet> {
    return new NodeFleet(await TcpStreams.open());
  }

  private constructor(streams: TcpStreams) {
    this.streams = streams;
  }

  /** `seeds`: `host:port`. */
  async add(
    id: string,
    seeds: readonly string[],
    config: Partial<PeerNodeConfig> = {},
    options: Partial<LocalPeerNodeOptions> = {},
  ): Promise<LocalPeerNode> {
    const node = await LocalPeerNode.open({
      config: {
        ...PEER_NODE_DEFAULTS,
        ...{ id, seeds, bind: { host: "127.0.0.1", port: 0 } },
        exchangePort: this.streams.port,
        keys: { secrets: [FLEET_KEY] },
        ...config,
      },
      ...{ streams: this.streams, clock: systemClock, random: systemRandom, log: silentLogger },
      makeTree: () => new FakeTree(),
      machine: (host) => this.#machine.read(host),
      signal: AbortSignal.timeout(10_000),
      ...options,
    });
    this.streams.nodes.set(id, node);
    this.nodes.set(id, node);
    return node;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(Array.from(this.nodes.values(), (node) => node.kill()));
    await this.streams[Symbol.asyncDispose]();
  }
}

export function textOf({ host, port }: Address): string {
  return `${host}:${port}`;
}
