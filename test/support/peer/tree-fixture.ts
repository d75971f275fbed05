/** One tree agent, driven by hand; the others are only addresses. */
import { decodeTreeMessage, encodeTreeMessage } from "../../../src/peer/tree/codec.ts";
import type { WireVersions } from "../../../src/peer/tree/codec.ts";
import { TREE_PRESETS } from "../../../src/peer/tree/config.ts";
import type { TreeConfig } from "../../../src/peer/tree/config.ts";
import type { TreeEffect, TreeEvent, TreeInput } from "../../../src/peer/tree/effects.ts";
import type { Report, TreeMessage } from "../../../src/peer/tree/messages.ts";
import type { TreeMember } from "../../../src/peer/tree/ranking.ts";
import { TreeAgent } from "../../../src/peer/tree/tree-agent.ts";
import type { PeerRef } from "../../../src/peer/peer-ref.ts";
import { SimRandom } from "./sim-random.ts";
import { imageOf } from "./tree-checks.ts";
import { refOf } from "./tree-samples.ts";

export const IMAGE = imageOf(1);

export interface SentTree {
  /** Number of the receiving member; -1: none that `refOf` makes. */
  readonly to: number;
  readonly message: TreeMessage;
}

export interface TreeFixtureOptions {
  readonly config?: Partial<TreeConfig>;
  readonly self?: Partial<PeerRef>;
  readonly wire?: WireVersions;
  /** It has been up so long, ms. */
  readonly upMs?: number;
}

/** Member n0; others are n1, n2, … */
export class TreeFixture {
  readonly agent: TreeAgent;
  nowMs = 1_000_000;
  #effects: TreeEffect[] = [];

  constructor({ config = {}, self = {}, wire, upMs = 3_600_000 }: TreeFixtureOptions = {}) {
    this.agent = new TreeAgent({
      config: { ...TREE_PRESETS.lan, ...config },
      self: refOf(0, self),
      random: new SimRandom(1),
      nowMs: this.nowMs - upMs,
      ...(wire === undefined ? {} : { wire }),
    });
  }

  step(input: TreeInput): this {
    this.#effects.push(...this.agent.step(input, this.nowMs));
    return this;
  }

  /** These members are alive and settled; `states` has what is different. */
  know(known: readonly number[], states: Readonly<Record<number, Partial<TreeMember>>> = {}): this {
    const list = known.map((number) => ({
      ...refOf(number),
      state: "alive" as const,
      aliveSinceMs: this.nowMs - 3_600_000,
      isSeed: false,
      ...states[number],
    }));
    return this.step({ kind: "members", list });
  }

  receive(number: number, message: TreeMessage, wire?: WireVersions): this {
    const { address, boot } = refOf(number);
    const content = encodeTreeMessage(message, wire);
    return this.step({ kind: "packet", from: { address }, sender: boot, content });
  }

  /** Member `number` asks for a place itself. */
  join(number: number, changes: Partial<Report> = {}): this {
    return this.receive(number, reportOf(number, changes));
  }

  pass(ms: number): this {
    const untilMs = this.nowMs + ms;
    while (this.agent.nextMs <= untilMs) {
      this.nowMs = Math.max(this.nowMs, this.agent.nextMs);
      this.step({ kind: "tick" });
    }
    this.nowMs = untilMs;
    return this;
  }

  takeEffects(): readonly TreeEffect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  takeSent(): readonly SentTree[] {
    return this.takeEffects().flatMap((effect) => {
      if (effect.kind !== "send") return [];
      const { host } = effect.to.address;
      const parts = host.split(".").map(Number);
      const to = parts[0] === 10 ? (parts[2] ?? 0) * 256 + (parts[3] ?? 0) : -1;
      return [{ to, message: decodeTreeMessage(effect.content) }];
    });
  }

  /** The messages of one kind since the last `take…`. */
  take<K extends TreeMessage["kind"]>(
    kind: K,
  ): readonly { readonly to: number; readonly message: TreeMessage & { readonly kind: K } }[] {
    return this.takeSent().flatMap(({ to, message }) =>
      isKind(message, kind) ? [{ to, message }] : [],
    );
  }

  takeEvents(): readonly TreeEvent[] {
    return this.takeEffects().flatMap((effect) => (effect.kind === "event" ? [effect.event] : []));
  }

  /** Parents by member, as this manager has them. */
  parents(image = IMAGE): Readonly<Record<string, string>> {
    const tree = this.agent.managed().find((one) => one.image === image);
    return Object.fromEntries(tree?.members.map(({ id, parent }) => [id, parent ?? "-"]) ?? []);
  }
}

function isKind<K extends TreeMessage["kind"]>(
  message: TreeMessage,
  kind: K,
): message is TreeMessage & { readonly kind: K } {
  return message.kind === kind;
}

export function reportOf(number: number, changes: Partial<Report> = {}): Report {
  return {
    kind: "report",
    image: IMAGE,
    member: refOf(number),
    hops: 0,
    rank: "any",
    heldBlocks: 0,
    interior: 0,
    bytesPerSecond: 0,
    ...changes,
  };
}

export function numbers(count: number, from = 1): number[] {
  return Array.from({ length: count }, (_, index) => index + from);
}

/** n0 manages alone: it knows nobody else that is settled. */
export function manager(members: readonly number[] = [], config = {}): TreeFixture {
  const fixture = new TreeFixture({ config }).know([0]);
  for (const number of members) fixture.join(number);
  fixture.takeEffects();
  return fixture;
}
