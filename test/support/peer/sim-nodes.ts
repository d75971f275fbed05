/** Whole nodes (engines) on a simulated network: sealed packets, greetings, streams, clones. */
import { silentLogger } from "../../../src/base/log.ts";
import type { MembershipConfig } from "../../../src/peer/membership/config.ts";
import { MEMBERSHIP_PRESETS } from "../../../src/peer/membership/config.ts";
import type { Address } from "../../../src/peer/membership/member.ts";
import { PEER_NODE_DEFAULTS } from "../../../src/peer/node/config.ts";
import type { PeerNodeConfig } from "../../../src/peer/node/config.ts";
import { Engine } from "../../../src/peer/node/engine.ts";
import type { MakeTree } from "../../../src/peer/node/tree-port.ts";
import type { PeerRef } from "../../../src/peer/peer-ref.ts";
import type { TreeEffect } from "../../../src/peer/tree/index.ts";
import type { MachineState } from "../../../src/peer/transport/boot-id.ts";
import { KeyRing } from "../../../src/peer/transport/key-ring.ts";
import { FakeTree } from "./fake-tree.ts";
import { SimClock, SimTime } from "./sim-clock.ts";
import { SimRandom } from "./sim-random.ts";

export const SIM_PORT = 7411;
export const SIM_KEY = new Uint8Array(32).fill(1);

export interface SimPacket {
  readonly from: Address;
  readonly to: Address;
  readonly packet: Uint8Array;
}

export interface SimNodeOptions {
  readonly host?: string;
  readonly keys?: readonly Uint8Array[];
  readonly seeds?: readonly Address[];
  readonly config?: Partial<PeerNodeConfig>;
  readonly membership?: Partial<MembershipConfig>;
  readonly makeTree?: MakeTree;
  readonly aheadMs?: number;
}

export class SimPeer {
  readonly clock: SimClock;
  readonly tree = new FakeTree();
  readonly treeEffects: Exclude<TreeEffect, { readonly kind: "send" }>[] = [];
  readonly selves: PeerRef[] = [];
  /** What the machine looks like to the node. */
  machine: Partial<MachineState> = {};
  isDown = false;
  engine!: Engine;

  constructor(time: SimTime) {
    this.clock = new SimClock(time);
  }

  findings(): readonly string[] {
    return this.engine.watch.findings.map(({ kind, who }) => `${kind} ${who}`);
  }

  /** Ids of present members, sorted. */
  present(): readonly string[] {
    return this.engine.watch
      .report(() => false)
      .filter(({ state }) => state === "alive" || state === "suspect")
      .map(({ id }) => id);
  }
}

export class SimNetwork implements Disposable {
  readonly time = new SimTime();
  readonly peers: SimPeer[] = [];
  /** Every packet that was sent, in order. */
  readonly packets: SimPacket[] = [];
  readonly random: SimRandom;
  #isLost: (packet: SimPacket) => boolean = () => false;
  #isStreamCut: (from: string, to: string) => boolean = () => false;

  constructor(seed = 1) {
    this.random = new SimRandom(seed);
  }

  lose(isLost: (packet: SimPacket) => boolean): void {
    this.#isLost = isLost;
  }

  /** By host. */
  cutStreams(isCut: (from: string, to: string) => boolean): void {
    this.#isStreamCut = isCut;
  }

  add(id: string, options: SimNodeOptions = {}): SimPeer {
    const peer = new SimPeer(this.time);
    const host = options.host ?? `10.0.0.${this.peers.length + 1}`;
    const address = { host, port: SIM_PORT };
    peer.clock.aheadMs = options.aheadMs ?? 0;
    peer.engine = new Engine({
      config: {
        ...PEER_NODE_DEFAULTS,
        ...{ id, bind: address, exchangePort: 7412, keys: { secrets: [] } },
        membership: { ...MEMBERSHIP_PRESETS.lan, ...options.membership },
        ...options.config,
      },
      ring: new KeyRing(options.keys ?? [SIM_KEY]),
      address,
      socket: {
        send: (packet, to) => {
          this.send({ from: peer.engine.self.address, to, packet: Uint8Array.from(packet) });
        },
      },
      streams: {
        pushPull: async (to, records) => this.#stream(peer, to).engine.onPushPull(records),
        probe: async (to) => {
          this.#stream(peer, to);
        },
      },
      ...{ clock: peer.clock, random: this.random, log: silentLogger },
      machine: () => ({
        wallMs: Number(peer.clock.wallNs() / 1_000_000n),
        monotonicMs: peer.clock.nowMs(),
        ...{ hasAddress: true, machineId: "", generationId: "" },
        ...peer.machine,
      }),
      makeTree: options.makeTree ?? (() => peer.tree),
      onTree: (effect) => peer.treeEffects.push(effect),
      onSelf: (self) => peer.selves.push(self),
      onAddressLost: () => undefined,
    });
    this.peers.push(peer);
    peer.engine.setSeeds(options.seeds ?? this.#firstAddress(peer));
    return peer;
  }

  /** A packet on its way, whoever made it. */
  send(packet: SimPacket): void {
    this.packets.push(packet);
    if (this.#isLost(packet)) return;
    this.time.queue.add(this.time.nowMs + 1 + this.random.next(), () => {
      const { to, from } = packet;
      for (const { engine, isDown } of this.peers) {
        const { host, port } = engine.self.address;
        if (!isDown && host === to.host && port === to.port) engine.receive(packet.packet, from);
      }
    });
  }

  down(peer: SimPeer): void {
    peer.isDown = true;
    peer.engine[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    for (const peer of this.peers) peer.engine[Symbol.dispose]();
  }

  #firstAddress(peer: SimPeer): readonly Address[] {
    const [first] = this.peers;
    return first === undefined || first === peer ? [] : [first.engine.self.address];
  }

  #stream(from: SimPeer, to: PeerRef): SimPeer {
    const target = this.peers.find(
      ({ engine, isDown }) => !isDown && engine.self.address.host === to.address.host,
    );
    const isCut = this.#isStreamCut(from.engine.self.address.host, to.address.host);
    if (target === undefined || isCut || target.engine.self.id !== to.id) {
      throw new Error("connection refused");
    }
    return target;
  }
}
