/**
 * SWIM's failure detector: one member is pinged per interval; when it is silent, others are asked
 * to ping it, and a stream is tried beside; when all are silent it is suspected. Source: SWIM 3.1,
 * Lifeguard 4.1 (nacks; the local health stretches interval and timeout).
 */
import { encodeMessage } from "./codec.ts";
import type { MembershipConfig } from "./config.ts";
import type { Dissemination } from "./dissemination.ts";
import type { Destination, Effect } from "./effects.ts";
import { RELAYED_PROBES_MAX } from "./limits.ts";
import { isPresent } from "./member.ts";
import type { Address, Member } from "./member.ts";
import type { IndirectPing, Message, Ping } from "./messages.ts";

interface Probe {
  readonly target: Member;
  readonly sequence: number;
  readonly indirectMs: number;
  readonly endMs: number;
  isIndirect: boolean;
  /** Members that were asked and have neither said ack nor nack. */
  silent: Set<string>;
}

/** A ping on behalf of another member. */
interface Relay {
  readonly origin: Destination;
  readonly originSequence: number;
  readonly nackMs: number;
  readonly endMs: number;
  isNacked: boolean;
}

/** A sequence number is sent as 32 bits. */
const SEQUENCES = 2 ** 32;

export class FailureDetector {
  readonly #config: MembershipConfig;
  readonly #members: Dissemination;
  readonly #relays = new Map<number, Relay>();
  /** No relay has anything to do before. */
  #nextRelayMs = Infinity;
  #probe: Probe | undefined;
  #nextProbeMs: number;
  #sequence: number;

  /** `firstSequence`: random, so that an ack for an earlier life is not taken for one of this. */
  constructor(
    config: MembershipConfig,
    members: Dissemination,
    start: { readonly firstProbeMs: number; readonly firstSequence: number },
  ) {
    this.#config = config;
    this.#members = members;
    this.#nextProbeMs = start.firstProbeMs;
    this.#sequence = start.firstSequence % SEQUENCES;
  }

  get nextMs(): number {
    const probe = this.#probe;
    let next = probe === undefined ? this.#nextProbeMs : probe.endMs;
    if (probe !== undefined && !probe.isIndirect) next = Math.min(next, probe.indirectMs);
    return Math.min(next, this.#nextRelayMs);
  }

  tick(nowMs: number): readonly Effect[] {
    const effects = [...this.#tickRelays(nowMs)];
    const probe = this.#probe;
    if (probe !== undefined && nowMs >= probe.endMs) effects.push(...this.#fail(probe, nowMs));
    else if (probe !== undefined && !probe.isIndirect && nowMs >= probe.indirectMs) {
      effects.push(...this.#askOthers(probe));
    }
    if (this.#probe === undefined && nowMs >= this.#nextProbeMs) {
      effects.push(...this.#start(nowMs));
    }
    return effects;
  }

  onPing(ping: Ping, from: Destination): readonly Effect[] {
    if (ping.target !== this.#members.self.id) return [];
    return [this.#send(from, { kind: "ack", sequence: ping.sequence })];
  }

  onIndirectPing(ping: IndirectPing, from: Destination, nowMs: number): readonly Effect[] {
    if (this.#relays.size >= RELAYED_PROBES_MAX) return [];
    const sequence = this.#nextSequence();
    this.#relays.set(sequence, {
      origin: from,
      originSequence: ping.sequence,
      nackMs: nowMs + this.#config.probeTimeoutMs,
      endMs: nowMs + this.#config.probeIntervalMs,
      isNacked: false,
    });
    this.#nextRelayMs = Math.min(this.#nextRelayMs, nowMs + this.#config.probeTimeoutMs);
    return [this.#ping(ping.target, ping.address, sequence)];
  }

  /** Of the target itself, of a member that asked it for us, or over a stream. */
  onAck(sequence: number, nowMs: number): readonly Effect[] {
    const relay = this.#relays.get(sequence);
    if (relay !== undefined) {
      this.#relays.delete(sequence);
      return [this.#send(relay.origin, { kind: "ack", sequence: relay.originSequence })];
    }
    const probe = this.#probe;
    if (probe?.sequence === sequence) {
      this.#probe = undefined;
      // Too late, and yet before this node came to look at its clock: it is the slow one.
      this.#members.awareness.add(nowMs > probe.endMs ? 1 : -1);
    }
    return [];
  }

  /** `from`: the id of the member that the packet came from. */
  onNack(sequence: number, from: string): void {
    if (this.#probe?.sequence === sequence) this.#probe.silent.delete(from);
  }

  #start(nowMs: number): readonly Effect[] {
    const self = this.#members.self.id;
    this.#nextProbeMs = nowMs + this.#config.probeIntervalMs;
    const target = this.#members.view.nextToProbe(
      (member) => member.id !== self && isPresent(member),
    );
    if (target === undefined) return [];
    const { awareness } = this.#members;
    const probe: Probe = {
      target,
      sequence: this.#nextSequence(),
      indirectMs: nowMs + awareness.scaleMs(this.#config.probeTimeoutMs),
      endMs: nowMs + awareness.scaleMs(this.#config.probeIntervalMs),
      isIndirect: false,
      silent: new Set(),
    };
    this.#probe = probe;
    if (target.state !== "suspect") {
      return [this.#ping(target.id, target.address, probe.sequence, target.boot)];
    }
    // Tell a suspect at once, so that it can refute: Lifeguard's buddy system (4.3).
    const { id, incarnation } = target;
    const ping = this.#pingMessage(id, probe.sequence);
    return [this.#send(target, ping, { kind: "suspect", incarnation, id, from: self })];
  }

  #askOthers(probe: Probe): readonly Effect[] {
    probe.isIndirect = true;
    const self = this.#members.self.id;
    const { id: target, address } = probe.target;
    const helpers = this.#members.view.pick(
      this.#config.indirectChecks,
      ({ id, state }) => id !== self && id !== target && state === "alive",
    );
    probe.silent = new Set(helpers.map(({ id }) => id));
    const { sequence } = probe;
    const message: Message = { kind: "indirect-ping", sequence, target, address };
    return [
      ...helpers.map((helper) => this.#send(helper, message)),
      { kind: "stream-probe", sequence, target: probe.target },
    ];
  }

  #fail(probe: Probe, nowMs: number): readonly Effect[] {
    this.#probe = undefined;
    // Helpers that said nack are heard, and the target is the odd one; silent ones point at us.
    const asked = Math.min(this.#config.indirectChecks, this.#members.view.presentCount - 2);
    this.#members.awareness.add(asked > 0 ? probe.silent.size : 1);
    const { id, incarnation } = probe.target;
    const from = this.#members.self.id;
    return this.#members.apply({ kind: "suspect", incarnation, id, from }, nowMs);
  }

  #tickRelays(nowMs: number): readonly Effect[] {
    if (nowMs < this.#nextRelayMs) return [];
    this.#nextRelayMs = Infinity;
    const effects: Effect[] = [];
    for (const [sequence, relay] of this.#relays) {
      if (nowMs >= relay.endMs) {
        this.#relays.delete(sequence);
        continue;
      }
      if (!relay.isNacked && nowMs >= relay.nackMs) {
        relay.isNacked = true;
        effects.push(this.#send(relay.origin, { kind: "nack", sequence: relay.originSequence }));
      }
      const nextMs = relay.isNacked ? relay.endMs : relay.nackMs;
      this.#nextRelayMs = Math.min(this.#nextRelayMs, nextMs);
    }
    return effects;
  }

  #nextSequence(): number {
    this.#sequence = (this.#sequence + 1) % SEQUENCES;
    return this.#sequence;
  }

  #pingMessage(target: string, sequence: number): Message {
    return { kind: "ping", sequence, target, from: this.#members.self.id };
  }

  #ping(target: string, address: Address, sequence: number, boot?: string): Effect {
    const to = boot === undefined ? { address } : { address, boot };
    return this.#send(to, this.#pingMessage(target, sequence));
  }

  /** A packet with these messages and whatever rides on it. */
  #send({ address, boot }: Destination, ...messages: readonly Message[]): Effect {
    const encoded = messages.map((message) => encodeMessage(message));
    const to = boot === undefined ? { address } : { address, boot };
    return { kind: "send", to, messages: [...encoded, ...this.#members.riders(encoded)] };
  }
}
