/**
 * Many tree agents on one virtual network and clock, with an oracle for membership that tells each
 * node of the others some time later. Deterministic for a seed.
 */
import { TREE_PRESETS } from "../../../src/peer/tree/config.ts";
import type { TreeConfig } from "../../../src/peer/tree/config.ts";
import type { WireVersions } from "../../../src/peer/tree/codec.ts";
import type { TreeEffect, TreeEvent, TreeInput } from "../../../src/peer/tree/effects.ts";
import type { TreeMember } from "../../../src/peer/tree/ranking.ts";
import { TreeAgent } from "../../../src/peer/tree/tree-agent.ts";
import type { PeerRef } from "../../../src/peer/peer-ref.ts";
import type { MemberState } from "../../../src/peer/membership/index.ts";
import { EventQueue } from "./event-queue.ts";
import { SimRandom } from "./sim-random.ts";

export interface TreeSimOptions {
  readonly seed: number;
  readonly config?: Partial<TreeConfig>;
  /** Share of packets that are lost. */
  readonly loss?: number;
  /** One-way time of a packet, ms: between half and one and a half times this. */
  readonly latencyMs?: number;
  /** A node hears of another's coming so much later at most, ms. */
  readonly newsMs?: number;
  /** A node hears of another's death between a half and the whole of this later, ms. */
  readonly deathMs?: number;
}

export interface TreeNodeOptions {
  readonly isSeed?: boolean;
  readonly zone?: string;
  /** It and all others have known each other for long. */
  readonly isOld?: boolean;
  readonly wire?: WireVersions;
}

export class TreeSimNode {
  readonly ref: PeerRef;
  readonly agent: TreeAgent;
  readonly options: TreeNodeOptions;
  readonly view = new Map<string, TreeMember>();
  readonly startedMs: number;
  readonly events: TreeEvent[] = [];
  readonly tokens: (TreeEffect & { readonly kind: "token-answer" })[] = [];
  isDown = false;
  /** What it does comes this much later: a paused process. */
  pausedUntilMs = 0;
  wakeMs = Infinity;
  isViewDue = false;
  /** When it first had a position, by image. */
  readonly placedMs = new Map<string, number>();
  parentChanges = 0;

  constructor(ref: PeerRef, agent: TreeAgent, options: TreeNodeOptions, nowMs: number) {
    this.ref = ref;
    this.agent = agent;
    this.options = options;
    this.startedMs = nowMs;
  }
}

/** News are told together, so often. */
const VIEW_MS = 100;
const VIEW_MS_PER_MEMBER = 1;
const LONG_AGO_MS = -3_600_000;

export class TreeSim {
  readonly random: SimRandom;
  readonly nodes = new Map<string, TreeSimNode>();
  readonly config: TreeConfig;
  readonly options: TreeSimOptions;
  readonly sent = new Map<number, number>();
  packets = 0;
  bytesMax = 0;
  readonly #queue = new EventQueue();
  readonly #byHost = new Map<string, TreeSimNode>();
  #isCut: (from: string, to: string) => boolean = () => false;
  #nowMs = 0;
  #boots = 0;
  #seeds: TreeSimNode[] = [];

  constructor(options: TreeSimOptions) {
    this.options = options;
    this.config = { ...TREE_PRESETS.lan, ...options.config };
    this.random = new SimRandom(options.seed);
  }

  get nowMs(): number {
    return this.#nowMs;
  }

  node(id: string): TreeSimNode {
    const node = this.nodes.get(id);
    if (node === undefined) throw new RangeError(`no node ${id}`);
    return node;
  }

  running(): readonly TreeSimNode[] {
    return [...this.nodes.values()].filter(({ isDown }) => !isDown);
  }

  add(id: string, options: TreeNodeOptions = {}): TreeSimNode {
    this.#boots += 1;
    const number = Number(id.replaceAll(/\D/g, ""));
    const ref: PeerRef = {
      id,
      boot: this.#boots.toString(16).padStart(32, "0"),
      address: {
        host: `10.${(number >> 16) & 255}.${(number >> 8) & 255}.${number & 255}`,
        port: 7946,
      },
      exchangePort: 7947,
      zone: options.zone ?? "",
      version: options.wire?.version ?? 1,
    };
    const { config, random } = this;
    const nowMs = options.isOld === true ? LONG_AGO_MS : this.#nowMs;
    const wire = options.wire === undefined ? {} : { wire: options.wire };
    const agent = new TreeAgent({ config, self: ref, random, nowMs, ...wire });
    const node = new TreeSimNode(ref, agent, options, nowMs);
    if (options.isSeed === true) {
      this.#seeds = [...this.#seeds.filter(({ ref: other }) => other.id !== id), node];
    }
    this.nodes.set(id, node);
    this.#byHost.set(ref.address.host, node);
    this.input(node, {
      kind: "seeds",
      list: this.#seeds.map(({ ref: { address } }) => ({ address })),
    });
    this.#meet(node);
    return node;
  }

  /** Each hears of the other some time later; of old ones, and of itself, at once. */
  #meet(node: TreeSimNode): void {
    this.#learn(node, node, "alive");
    for (const other of this.nodes.values()) {
      if (other === node || other.isDown) continue;
      const areOld = node.options.isOld === true && other.options.isOld === true;
      const newsMs = areOld ? 0 : (this.options.newsMs ?? 0);
      for (const [who, whom] of [
        [node, other],
        [other, node],
      ] as const) {
        if (newsMs === 0) this.#learn(who, whom, "alive");
        else {
          this.#after(this.random.next() * newsMs, () => {
            if (!whom.isDown && this.nodes.get(whom.ref.id) === whom)
              this.#learn(who, whom, "alive");
          });
        }
      }
    }
  }

  #learn(who: TreeSimNode, whom: TreeSimNode, state: MemberState): void {
    const known = who.view.get(whom.ref.id);
    const isSeed = whom.options.isSeed === true;
    const isSame = known?.boot === whom.ref.boot;
    if (known !== undefined && !isSame && state !== "alive") return;
    const aliveSinceMs =
      isSame && known.state === "alive"
        ? known.aliveSinceMs
        : whom.options.isOld === true && who.options.isOld === true && known === undefined
          ? LONG_AGO_MS
          : this.#nowMs;
    who.view.set(whom.ref.id, { ...whom.ref, state, aliveSinceMs, isSeed });
    if (who.isViewDue) return;
    who.isViewDue = true;
    const waitMs = this.random.next() * (VIEW_MS + VIEW_MS_PER_MEMBER * who.view.size);
    this.#after(who === whom ? 0 : waitMs, () => {
      who.isViewDue = false;
      if (!who.isDown) this.input(who, { kind: "members", list: [...who.view.values()] });
    });
  }

  /** Without a word; the others hear of it from membership later. */
  kill(node: TreeSimNode): void {
    node.isDown = true;
    for (const other of this.nodes.values()) if (other !== node) this.#mourn(other, node);
  }

  #mourn(who: TreeSimNode, whom: TreeSimNode): void {
    const deathMs = (this.options.deathMs ?? 5000) * (0.5 + this.random.next() / 2);
    this.#after(deathMs, () => {
      const isUnreachable = whom.isDown || this.#isCut(who.ref.id, whom.ref.id);
      if (isUnreachable && who.view.has(whom.ref.id)) this.#learn(who, whom, "dead");
    });
  }

  /** Its packets wait, and what it does. */
  pause(node: TreeSimNode, forMs: number): void {
    node.pausedUntilMs = this.#nowMs + forMs;
  }

  /** A process that starts again: another boot, nothing known. */
  restart(id: string): TreeSimNode {
    const old = this.node(id);
    old.isDown = true;
    const { isOld: _, ...options } = old.options;
    return this.add(id, options);
  }

  /** Packets for which `isCut` holds never arrive; membership notices. */
  cut(isCut: (from: string, to: string) => boolean): void {
    this.#isCut = isCut;
    for (const who of this.running()) {
      for (const whom of this.running()) {
        if (isCut(who.ref.id, whom.ref.id)) this.#mourn(who, whom);
      }
    }
  }

  heal(withinMs: number): void {
    this.#isCut = () => false;
    for (const who of this.running()) {
      for (const whom of this.running()) {
        if (who.view.get(whom.ref.id)?.state === "alive") continue;
        this.#after(this.random.next() * withinMs, () => {
          this.#learn(who, whom, "alive");
        });
      }
    }
  }

  input(node: TreeSimNode, input: TreeInput): void {
    this.#handle(node, node.agent.step(input, this.#nowMs));
    this.#wake(node);
  }

  join(node: TreeSimNode, image: string): void {
    this.input(node, { kind: "join", image });
  }

  run(forMs: number, everyMs = 0, check: () => void = () => undefined): void {
    const untilMs = this.#nowMs + forMs;
    let checkMs = everyMs > 0 ? this.#nowMs : Infinity;
    for (;;) {
      const event = this.#queue.take(Math.min(untilMs, checkMs));
      if (event === undefined) {
        if (checkMs > untilMs) break;
        this.#nowMs = checkMs;
        check();
        checkMs += everyMs;
        continue;
      }
      this.#nowMs = event.atMs;
      event.run();
    }
    this.#nowMs = untilMs;
  }

  at(afterMs: number, run: () => void): void {
    this.#after(afterMs, run);
  }

  #after(ms: number, run: () => void): void {
    this.#queue.add(this.#nowMs + ms, run);
  }

  #wake(node: TreeSimNode): void {
    const nextMs = Math.max(node.agent.nextMs, this.#nowMs);
    if (nextMs >= node.wakeMs || nextMs === Infinity) return;
    node.wakeMs = nextMs;
    const fire = (): void => {
      if (node.wakeMs !== nextMs || node.isDown) return;
      if (node.pausedUntilMs > this.#nowMs) {
        this.#queue.add(node.pausedUntilMs, fire);
        return;
      }
      node.wakeMs = Infinity;
      this.input(node, { kind: "tick" });
    };
    this.#queue.add(nextMs, fire);
  }

  #handle(node: TreeSimNode, effects: readonly TreeEffect[]): void {
    for (const effect of effects) {
      switch (effect.kind) {
        case "send":
          this.#send(node, effect);
          break;
        case "position":
          if (effect.position !== undefined && !node.placedMs.has(effect.image)) {
            node.placedMs.set(effect.image, this.#nowMs);
          }
          break;
        case "token-answer":
          node.tokens.push(effect);
          break;
        case "event":
          node.events.push(effect.event);
      }
    }
  }

  #send(node: TreeSimNode, { to, content }: TreeEffect & { readonly kind: "send" }): void {
    this.packets += 1;
    this.bytesMax = Math.max(this.bytesMax, content.length);
    const kind = content[2] ?? 0;
    this.sent.set(kind, (this.sent.get(kind) ?? 0) + 1);
    const { loss = 0, latencyMs = 1 } = this.options;
    if (this.random.next() < loss) return;
    // Who does not know the receiver's boot greets it first: one more round trip.
    const trips = to.boot === undefined ? 3 : 1;
    const delayMs = trips * latencyMs * (0.5 + this.random.next());
    const { boot, address } = node.ref;
    const arrive = (): void => {
      const target = this.#byHost.get(to.address.host);
      if (target === undefined || target.isDown || this.#isCut(node.ref.id, target.ref.id)) return;
      if (to.boot !== undefined && to.boot !== target.ref.boot) return;
      if (target.pausedUntilMs > this.#nowMs) {
        this.#queue.add(target.pausedUntilMs, arrive);
        return;
      }
      this.input(target, { kind: "packet", from: { address }, sender: boot, content });
    };
    this.#after(delayMs, arrive);
  }
}
