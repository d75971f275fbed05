/** The package's membership export as another program would use it. */
import assert from "node:assert/strict";
import {
  decodePacket,
  encodePacket,
  MEMBERSHIP_PRESETS,
  Swim,
} from "faasnet-snapshotter/membership";
import type { Effect, MemberInfo } from "faasnet-snapshotter/membership";
import { systemRandom } from "../../../../src/base/random.ts";

// Three members on a network that is a map: who is told of one learns of all, and of a death.
const config = MEMBERSHIP_PRESETS.lan;
const members = new Map<string, Swim>();
const log: string[] = [];

function add(number: number, nowMs: number): Swim {
  const address = { host: `10.0.0.${number}`, port: 7411 };
  const boot = number.toString(16).padStart(32, "0");
  const self: MemberInfo = { id: `m${number}`, boot, address, meta: new Uint8Array() };
  const swim = new Swim({ config, self, random: systemRandom, nowMs });
  members.set(address.host, swim);
  return swim;
}

function run(from: Swim, effects: readonly Effect[], nowMs: number): void {
  for (const effect of effects) {
    if (effect.kind === "event" && "member" in effect.event) {
      log.push(`${from.self.id}: ${effect.event.member.id} ${effect.event.kind}`);
    }
    if (effect.kind !== "send") continue;
    const target = members.get(effect.to.address.host);
    const messages = decodePacket(encodePacket(effect.messages));
    const { address, boot, id } = from.self;
    const packet = { kind: "packet", from: { address, boot }, sender: id, messages } as const;
    if (target !== undefined) run(target, target.step(packet, nowMs), nowMs);
  }
}

function pass(startMs: number, endMs: number): void {
  for (let nowMs = startMs; nowMs < endMs; nowMs += 10) {
    for (const swim of members.values()) {
      if (swim.nextMs <= nowMs) run(swim, swim.step({ kind: "tick" }, nowMs), nowMs);
    }
  }
}

describe("The example of membership", () => {
  it("shows members that find each other, and a death", () => {
    const [first, second, third] = [add(1, 0), add(2, 0), add(3, 0)];
    for (const other of [second, third]) {
      run(first, first.step({ kind: "view", records: other.records() }, 0), 0);
      run(other, other.step({ kind: "view", records: first.records() }, 0), 0);
    }
    pass(0, 5000);
    assert.deepEqual(
      [first, second, third].map(({ presentCount }) => presentCount),
      [3, 3, 3],
    );
    members.delete(third.self.address.host);
    pass(5000, 60_000);
    assert.ok(log.includes("m1: m3 died") && log.includes("m2: m3 died"));
  });
});
