/**
 * Many members on one virtual network and clock: packets take a random while, some are lost, links
 * can be cut. Deterministic for a seed.
 */
import { decodePacket, encodePacket } from "../../../src/peer/membership/codec.ts";
import type { MembershipConfig } from "../../../src/peer/membership/config.ts";
import type { Effect, MembershipEvent } from "../../../src/peer/membership/effects.ts";
import { isPresent } from "../../../src/peer/membership/member.ts";
import { Swim } from "../../../src/peer/membership/swim.ts";
import type { SwimInput } from "../../../src/peer/membership/swim.ts";
import { EventQueue } from "./event-queue.ts";
import { SimRandom } from "./sim-random.ts";

export interface SimClusterOptions {
  readonly config: MembershipConfig;
  readonly seed: number;
  /** Share of packets that are lost. */
  readonly loss?: number;
  /** One-way time of a packet, ms: between half and one and a half times this. */
  readonly latencyMs?: number;
}

export class SimNode {
  readonly swim: Swim;
  readonly events: MembershipEvent[] = [];
  hasLeft = false;
  isDown = false;
  /** What the node does comes this much later: a slow machine. */
  lagMs = 0;
  wakeMs = Infinity;

  constructor(swim: Swim) {
    this.swim = swim;
  }

  get id(): string {
    return this.swim.self.id;
  }

  /** Ids of all present members in this node's view, sorted. */
  present(): readonly string[] {
    return Array.from(this.swim.members())
      .filter(isPresent)
      .map(({ id }) => id)
      .sort();
  }
}

export class SimCluster {
  readonly random: SimRandom;
  readonly nodes = new Map<string, SimNode>();
  readonly #options: SimClusterOptions;
  readonly #queue = new EventQueue();
  readonly #byAddress = new Map<string, SimNode>();
  #nowMs = 0;
  #boots = 0;
  #isCut: (from: string, to: string) => boolean = () => false;
  packets = 0;

  constructor(options: SimClusterOptions) {
    this.#options = options;
    this.random = new SimRandom(options.seed);
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  /** Packets and streams for which `isCut` holds never arrive. */
  cut(isCut: (from: string, to: string) => boolean): void {
    this.#isCut = isCut;
  }

  /** A new member at its own address; it knows nobody until it joins. */
  add(id: string, host = this.#hostOf(id)): SimNode {
    this.#boots += 1;
    const boot = this.#boots.toString(16).padStart(32, "0");
    const self = { id, boot, address: { host, port: 7946 }, meta: new Uint8Array() };
    const { config } = this.#options;
    const swim = new Swim({ config, self, random: this.random, nowMs: this.#nowMs });
    const node = new SimNode(swim);
    this.nodes.set(id, node);
    this.#byAddress.set(host, node);
    this.#wake(node);
    return node;
  }

  /** The new one's push/pull with a member that it was told of. */
  join(node: SimNode, seed: SimNode): void {
    this.#pushPull(node, seed);
  }

  input(node: SimNode, input: SwimInput): void {
    this.#handle(node, node.swim.step(input, this.#nowMs));
    this.#wake(node);
  }

  kill(node: SimNode): void {
    node.isDown = true;
  }

  run(forMs: number): void {
    const untilMs = this.#nowMs + forMs;
    for (;;) {
      const event = this.#queue.take(untilMs);
      if (event === undefined) break;
      this.#nowMs = event.atMs;
      event.run();
    }
    this.#nowMs = untilMs;
  }

  /** Runs until `holds`, `limitMs` at most; how long it took, or undefined. */
  runUntil(holds: () => boolean, limitMs: number, stepMs = 100): number | undefined {
    const startMs = this.#nowMs;
    while (!holds()) {
      if (this.#nowMs - startMs >= limitMs) return undefined;
      this.run(stepMs);
    }
    return this.#nowMs - startMs;
  }

  /** Whether every running member sees exactly the running members. */
  isAgreed(): boolean {
    const running = [...this.nodes.values()].filter((node) => !node.isDown && !node.hasLeft);
    const expected = running
      .map(({ id }) => id)
      .sort()
      .join();
    return running.every((node) => node.present().join() === expected);
  }

  #hostOf(id: string): string {
    const number = Number(id.replaceAll(/\D/g, ""));
    return `10.${(number >> 16) & 255}.${(number >> 8) & 255}.${number & 255}`;
  }

  #wake(node: SimNode): void {
    const nextMs = Math.max(node.swim.nextMs, this.#nowMs);
    if (nextMs >= node.wakeMs || nextMs === Infinity) return;
    node.wakeMs = nextMs;
    this.#queue.add(nextMs + node.lagMs, () => {
      if (node.wakeMs !== nextMs) return;
      node.wakeMs = Infinity;
      if (node.isDown || node.hasLeft) return;
      this.input(node, { kind: "tick" });
    });
  }

  #handle(node: SimNode, effects: readonly Effect[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case "event":
          node.events.push(effect.event);
          break;
        case "has-left":
          node.hasLeft = true;
          break;
        case "send":
          this.#send(node, effect.to.address.host, encodePacket(effect.messages));
          break;
        case "stream-probe":
          this.#reach(node, effect.target.address.host, (target) => {
            if (target.id !== effect.target.id) return;
            this.#later(() => {
              this.input(node, { kind: "stream-ack", sequence: effect.sequence });
            });
          });
          break;
        case "push-pull":
          this.#reach(node, effect.target.address.host, (target) => {
            this.#pushPull(node, target);
          });
      }
    }
  }

  #pushPull(node: SimNode, other: SimNode): void {
    if (this.#isCut(node.id, other.id) || other.isDown) return;
    const records = node.swim.records();
    this.#later(() => {
      if (other.isDown || other.hasLeft) return;
      const answer = other.swim.records();
      this.input(other, { kind: "view", records });
      this.#later(() => {
        if (!node.isDown) this.input(node, { kind: "view", records: answer });
      });
    });
  }

  #send(node: SimNode, host: string, packet: Uint8Array): void {
    this.packets += 1;
    if (this.random.next() < (this.#options.loss ?? 0)) return;
    const { address, boot, id } = node.swim.self;
    this.#reach(node, host, (target) => {
      const messages = decodePacket(packet);
      this.input(target, { kind: "packet", from: { address, boot }, sender: id, messages });
    });
  }

  #reach(node: SimNode, host: string, arrive: (target: SimNode) => void): void {
    this.#later(() => {
      const target = this.#byAddress.get(host);
      if (target === undefined || target.isDown || target.hasLeft) return;
      if (this.#isCut(node.id, target.id)) return;
      if (target.lagMs === 0) arrive(target);
      else
        this.#queue.add(this.#nowMs + target.lagMs, () => {
          arrive(target);
        });
    });
  }

  #later(run: () => void): void {
    const latencyMs = (this.#options.latencyMs ?? 1) * (0.5 + this.random.next());
    this.#queue.add(this.#nowMs + latencyMs, run);
  }
}
