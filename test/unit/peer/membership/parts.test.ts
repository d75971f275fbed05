/** Formulas, health, the queue of broadcasts, the view, the configuration. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { Awareness } from "../../../../src/peer/membership/awareness.ts";
import { BroadcastQueue } from "../../../../src/peer/membership/broadcast-queue.ts";
import { decodePacket, encodePacket } from "../../../../src/peer/membership/codec.ts";
import { MEMBERSHIP_PRESETS, checkConfig } from "../../../../src/peer/membership/config.ts";
import {
  confirmationsNeeded,
  pushPullIntervalMs,
  retransmitLimit,
  suspicionLastsMs,
  suspicionTimeoutMs,
} from "../../../../src/peer/membership/formulas.ts";
import type { Broadcast } from "../../../../src/peer/membership/messages.ts";
import { subjectOf } from "../../../../src/peer/membership/messages.ts";
import { Suspicion } from "../../../../src/peer/membership/suspicion.ts";
import { View } from "../../../../src/peer/membership/view.ts";
import { SimRandom } from "../../../support/peer/sim-random.ts";
import { infoOf } from "../../../support/peer/swim-fixture.ts";

const { lan } = MEMBERSHIP_PRESETS;

describe("membership formulas", () => {
  it("give the suspicion time", () => {
    assert.equal(suspicionTimeoutMs(lan, 5), 4000);
    assert.equal(suspicionTimeoutMs(lan, 10), 4000);
    assert.equal(suspicionTimeoutMs(lan, 100), 8000);
  });

  const bounds = { minMs: 2000, maxMs: 30_000 };
  // memberlist's table, with 3 confirmations wanted.
  for (const [confirmations, lasts] of [
    [0, 30_000],
    [1, 16_000],
    [2, 7810],
    [3, 2000],
    [4, 2000],
  ] as const) {
    it(`let ${confirmations} of 3 confirmations shorten a suspicion to ${lasts} ms`, () => {
      const found = suspicionLastsMs(confirmations, 3, bounds);
      assert.ok(Math.abs(found - lasts) <= 2, `${found}`);
    });
  }

  it("wait for no confirmation that nobody can give", () => {
    assert.deepEqual(
      [2, 3, 4, 100].map((members) => confirmationsNeeded(lan, members)),
      [0, 0, 2, 2],
    );
    assert.equal(suspicionLastsMs(0, 0, bounds), 2000);
  });

  it("give the number of retransmissions and the push/pull interval", () => {
    assert.deepEqual(
      [1, 9, 10, 99, 1000].map((members) => retransmitLimit(3, members)),
      [3, 3, 6, 6, 12],
    );
    assert.deepEqual(
      [1, 32, 33, 64, 65, 128, 1000].map((members) => pushPullIntervalMs(10, members)),
      [10, 10, 20, 20, 30, 30, 60],
    );
  });
});

describe("Awareness", () => {
  it("stays within its bounds and stretches time", () => {
    const awareness = new Awareness(8);
    for (const [delta, score] of [
      [0, 0],
      [-1, 0],
      [-10, 0],
      [1, 1],
      [-1, 0],
      [10, 7],
      [-1, 6],
      [-6, 0],
      [3, 3],
    ] as const) {
      awareness.add(delta);
      assert.equal(awareness.score, score);
      assert.equal(awareness.scaleMs(1000), (score + 1) * 1000);
    }
  });
});

describe("Suspicion", () => {
  const make = (needed: number): Suspicion =>
    new Suspicion({ startedMs: 100, from: "me", needed, minMs: 500, maxMs: 2000 });

  it("counts each voice once, and not the first one's again", () => {
    const suspicion = make(3);
    assert.deepEqual(
      ["me", "a", "a", "b", "c", "d"].map((from) => suspicion.confirm(from)),
      [false, true, false, true, true, false],
    );
    assert.equal(suspicion.endsMs, 600);
  });

  it("ends later the fewer confirm, and at once at the minimum when none is wanted", () => {
    assert.equal(make(3).endsMs, 2100);
    assert.equal(make(0).endsMs, 600);
  });
});

describe("BroadcastQueue", () => {
  const news = (number: number, incarnation = 1): Broadcast => ({
    kind: "suspect",
    incarnation,
    id: `n${number}`,
    from: "n0",
  });
  const take = (queue: BroadcastQueue, room: number, limit: number): readonly string[] =>
    decodePacket(encodePacket(queue.take(room, limit))).map((message) =>
      message.kind === "suspect" ? `${subjectOf(message)}@${message.incarnation}` : "",
    );

  it("lets news of a member replace what was to be said of it", () => {
    const queue = new BroadcastQueue();
    queue.add(news(1));
    queue.add(news(1, 2));
    assert.equal(queue.size, 1);
    assert.deepEqual(take(queue, 1000, 1), ["n1@2"]);
    assert.equal(queue.has("n1"), false);
  });

  it("sends each as often as asked, the least sent first, then the newest", () => {
    const queue = new BroadcastQueue();
    queue.add(news(1));
    queue.add(news(2));
    const room = 3 + 4 + 3 + 3; // one of them
    assert.deepEqual(take(queue, room, 2), ["n2@1"]);
    assert.deepEqual(take(queue, room, 2), ["n1@1"]);
    queue.add(news(3));
    assert.deepEqual(take(queue, 1000, 2), ["n3@1", "n1@1", "n2@1"]);
    assert.deepEqual(take(queue, 1000, 2), ["n3@1"]);
    assert.equal(queue.size, 0);
  });

  it("sends what others say too as much less often, and once at least", () => {
    const queue = new BroadcastQueue();
    queue.add(news(1));
    queue.add(news(2));
    queue.heard("n1", 10);
    queue.heard("n2", 1);
    queue.heard("n3", 1);
    assert.deepEqual(take(queue, 1000, 4), ["n2@1", "n1@1"]);
    assert.deepEqual(take(queue, 1000, 4), ["n2@1"]);
    assert.deepEqual(take(queue, 1000, 4), ["n2@1"]);
    assert.equal(queue.size, 0);
  });

  it("takes nothing that does not fit, and what fits behind it", () => {
    const queue = new BroadcastQueue();
    queue.add(news(1));
    queue.add({ kind: "suspect", incarnation: 1, id: "x".repeat(200), from: "n0" });
    assert.deepEqual(take(queue, 100, 3), ["n1@1"]);
    assert.deepEqual(take(queue, 5, 3), []);
  });
});

describe("View", () => {
  it("counts, picks and goes round fairly whatever happens", () => {
    const change = fc.tuple(fc.nat(20), fc.constantFrom("alive", "suspect", "dead", "left"));
    fc.assert(
      fc.property(fc.array(change, { maxLength: 60 }), fc.nat(), (changes, seed) => {
        const view = new View(new SimRandom(seed));
        const states = new Map<number, string>();
        for (const [number, state] of changes) {
          view.set({ ...infoOf(number), state, incarnation: 0, changedMs: 0 });
          states.set(number, state);
        }
        const isIn = (state: string): boolean => state === "alive" || state === "suspect";
        const present = [...states].filter(([, state]) => isIn(state)).length;
        assert.equal(view.presentCount, present);
        const all = (): boolean => true;
        for (let round = 0; round < 2 * states.size; round += 1) view.nextToProbe(all);
        const seen = new Set<string>();
        for (let round = 0; round < 2 * states.size; round += 1) {
          seen.add(view.nextToProbe(all)?.id ?? "");
        }
        assert.equal(seen.size, states.size);
        const picked = view.pick(3, ({ state }) => state === "alive");
        assert.equal(new Set(picked).size, picked.length);
        assert.ok(picked.every(({ state }) => state === "alive"));
        view.forget(({ state }) => state === "dead");
        assert.equal(view.presentCount, present);
        assert.ok([...view.all()].every(({ state }) => state !== "dead"));
      }),
    );
  });

  it("finds nobody to probe where nobody fits", () => {
    const view = new View(new SimRandom(1));
    assert.equal(
      view.nextToProbe(() => true),
      undefined,
    );
    view.set({ ...infoOf(1), state: "dead", incarnation: 0, changedMs: 0 });
    assert.equal(
      view.nextToProbe(({ state }) => state === "alive"),
      undefined,
    );
    assert.deepEqual(
      view.pick(3, () => false),
      [],
    );
  });
});

describe("The configuration of membership", () => {
  it("is sane in every preset", () => {
    for (const preset of Object.values(MEMBERSHIP_PRESETS)) checkConfig(preset);
  });

  for (const [change, message] of [
    [{ probeTimeoutMs: 1000 }, /probeTimeoutMs has to be below/],
    [{ probeIntervalMs: 0, probeTimeoutMs: -1 }, /probeTimeoutMs is -1/],
    [{ gossipNodes: Number.NaN }, /gossipNodes is NaN/],
    [{ awarenessMax: 0 }, /awarenessMax/],
  ] as const) {
    it(`is refused with ${JSON.stringify(change)}`, () => {
      assert.throws(() => checkConfig({ ...lan, ...change }), {
        code: "invalid-argument",
        message,
      });
    });
  }
});
