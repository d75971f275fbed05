/** One member's state machine, driven by hand. */
import { decodePacket, encodePacket } from "../../../src/peer/membership/codec.ts";
import { MEMBERSHIP_PRESETS } from "../../../src/peer/membership/config.ts";
import type { MembershipConfig } from "../../../src/peer/membership/config.ts";
import type { Effect, MembershipEvent } from "../../../src/peer/membership/effects.ts";
import type { MemberInfo } from "../../../src/peer/membership/member.ts";
import type { Message } from "../../../src/peer/membership/messages.ts";
import { Swim } from "../../../src/peer/membership/swim.ts";
import type { SwimInput } from "../../../src/peer/membership/swim.ts";
import { SimRandom } from "./sim-random.ts";

export function infoOf(number: number, changes: Partial<MemberInfo> = {}): MemberInfo {
  return {
    id: `n${number}`,
    boot: number.toString(16).padStart(32, "0"),
    address: { host: `10.0.0.${number}`, port: 7946 },
    meta: new Uint8Array(),
    ...changes,
  };
}

export interface Sent {
  readonly host: string;
  readonly message: Message;
}

/** Member n0; others are n1, n2, … */
export class SwimFixture {
  readonly swim: Swim;
  nowMs = 1000;
  /** Since the last call of `take…`. */
  #effects: Effect[] = [];

  constructor(config: Partial<MembershipConfig> = {}) {
    this.swim = new Swim({
      config: { ...MEMBERSHIP_PRESETS.lan, ...config },
      self: infoOf(0),
      random: new SimRandom(1),
      nowMs: this.nowMs,
    });
  }

  step(input: SwimInput): this {
    this.#effects.push(...this.swim.step(input, this.nowMs));
    return this;
  }

  /** Messages as from member `number`. */
  receive(number: number, ...messages: readonly Message[]): this {
    const { address, boot, id } = infoOf(number);
    return this.step({ kind: "packet", from: { address, boot }, sender: id, messages });
  }

  /** Members n1 … n`count` are alive with incarnation 1. */
  know(count: number): this {
    for (let number = 1; number <= count; number += 1) {
      this.receive(number, { kind: "alive", incarnation: 1, member: infoOf(number) });
    }
    this.takeEvents();
    return this;
  }

  /** Goes on in time, with the ticks that are asked for. */
  pass(ms: number): this {
    const untilMs = this.nowMs + ms;
    while (this.swim.nextMs <= untilMs) {
      this.nowMs = Math.max(this.nowMs, this.swim.nextMs);
      this.step({ kind: "tick" });
    }
    this.nowMs = untilMs;
    return this;
  }

  takeEffects(): readonly Effect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  takeEvents(): readonly MembershipEvent[] {
    return this.takeEffects().flatMap((effect) => (effect.kind === "event" ? [effect.event] : []));
  }

  /** The kinds of the events. */
  takeKinds(): readonly string[] {
    return this.takeEvents().map(({ kind }) => kind);
  }

  takeSent(): readonly Sent[] {
    return this.takeEffects().flatMap((effect) =>
      effect.kind === "send" ? sentOf(effect.to.address.host, effect.messages) : [],
    );
  }

  stateOf(number: number): string | undefined {
    return this.swim.get(`n${number}`)?.state;
  }
}

function sentOf(host: string, messages: readonly Uint8Array[]): readonly Sent[] {
  return decodePacket(encodePacket(messages)).map((message) => ({ host, message }));
}
