/** Sealed packets: what opens, and all that must not. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { KeyRing } from "../../../../src/peer/transport/key-ring.ts";
import { RecentMap } from "../../../../src/peer/transport/recent-map.ts";
import { ReplayWindow } from "../../../../src/peer/transport/replay-window.ts";
import {
  CONTENT_BYTES_MAX,
  PACKET_BYTES_MAX,
  Sealer,
} from "../../../../src/peer/transport/seal.ts";
import type { Opened } from "../../../../src/peer/transport/seal.ts";

const keyOf = (number: number): Uint8Array => new Uint8Array(32).fill(number);
const bootOf = (number: number): string => number.toString(16).padStart(32, "0");
const sealerOf = (boot: number, ...keys: readonly number[]): Sealer =>
  new Sealer(new KeyRing(keys.map(keyOf)), bootOf(boot));
const text = (value: string): Uint8Array => Buffer.from(value);
const reasonOf = (opened: Opened): string =>
  opened.kind === "refused" ? opened.reason : opened.kind;

describe("A sealed packet", () => {
  it("opens once, for the boot that it is made for", () => {
    const [one, two, three] = [sealerOf(1, 1), sealerOf(2, 1), sealerOf(3, 1)];
    const packet = one.seal(bootOf(2), text("news"));
    const opened = two.open(packet);
    assert.ok(opened.kind === "member");
    assert.equal(opened.sender, bootOf(1));
    assert.equal(Buffer.from(opened.content).toString(), "news");
    assert.equal(reasonOf(two.open(packet)), "replayed");
    assert.equal(reasonOf(three.open(packet)), "forged");
    assert.equal(reasonOf(one.open(packet)), "own");
  });

  it("for an earlier boot of the receiver opens no more", () => {
    const [one, two] = [sealerOf(1, 1), sealerOf(2, 1)];
    const packet = one.seal(bootOf(2), text("late"));
    two.renew(bootOf(9));
    assert.equal(reasonOf(two.open(packet)), "forged");
  });

  it("without a boot is a hello, which everybody may hear, again and again", () => {
    const hello = sealerOf(1, 1).seal(undefined, text("who is there"));
    const two = sealerOf(2, 1);
    assert.deepEqual([two.open(hello), two.open(hello), sealerOf(3, 1).open(hello)].map(reasonOf), [
      "hello",
      "hello",
      "hello",
    ]);
  });

  it("of a stranger opens nowhere", () => {
    const two = sealerOf(2, 1);
    assert.equal(reasonOf(two.open(sealerOf(1, 7).seal(bootOf(2), text("x")))), "unknown-key");
    assert.equal(reasonOf(two.open(sealerOf(1, 7).seal(undefined, text("x")))), "unknown-key");
  });

  it("that is changed anywhere, cut or random opens nowhere", () => {
    const one = sealerOf(1, 1);
    const two = sealerOf(2, 1);
    const change = fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 }));
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 60 }),
        change,
        fc.boolean(),
        (content, [at, by], hi) => {
          const packet = one.seal(hi ? undefined : bootOf(2), content);
          const cut = packet.slice(0, at % packet.length);
          assert.equal(two.open(cut).kind, "refused");
          const index = at % packet.length;
          packet[index] = (packet[index] ?? 0) ^ by;
          assert.equal(two.open(packet).kind, "refused");
          assert.equal(two.open(content).kind, "refused");
        },
      ),
      { numRuns: 1000 },
    );
  });

  it("is at most 1232 bytes", () => {
    const one = sealerOf(1, 1);
    assert.equal(one.seal(bootOf(2), new Uint8Array(CONTENT_BYTES_MAX)).length, PACKET_BYTES_MAX);
    assert.throws(() => one.seal(bootOf(2), new Uint8Array(CONTENT_BYTES_MAX + 1)), {
      code: "internal",
    });
    assert.equal(reasonOf(sealerOf(2, 1).open(new Uint8Array(5000).fill(1))), "malformed");
  });

  it("never repeats a nonce under one key, also after a clone got another boot", () => {
    const one = sealerOf(1, 1);
    const headers = new Set<string>();
    for (let count = 0; count < 100; count += 1) {
      if (count === 50) one.renew(bootOf(5));
      headers.add(Buffer.from(one.seal(bootOf(2), text("x")).subarray(3, 27)).toString("hex"));
    }
    assert.equal(headers.size, 100);
  });
});

describe("A rotation of the cluster key", () => {
  it("loses no packet at any step, in any order of nodes", () => {
    const steps = [[1], [1, 2], [2, 1], [2]];
    const nodes = [sealerOf(1, 1), sealerOf(2, 1), sealerOf(3, 1)];
    const ping = (): void => {
      for (const [from, sealer] of nodes.entries()) {
        for (const [to, receiver] of nodes.entries()) {
          if (from === to) continue;
          assert.equal(reasonOf(receiver.open(sealer.seal(bootOf(to + 1), text("x")))), "member");
        }
      }
    };
    for (const keys of steps) {
      for (const node of nodes) {
        node.rotate(new KeyRing(keys.map(keyOf)));
        ping();
      }
    }
  });

  it("shuts out who has only the old key", () => {
    const old = sealerOf(1, 1);
    assert.equal(reasonOf(sealerOf(2, 2).open(old.seal(bootOf(2), text("x")))), "unknown-key");
  });
});

describe("A key ring", () => {
  it("is refused when it is empty, too long, doubled or of wrong length, showing no key", () => {
    const bad: readonly (readonly Uint8Array[])[] = [
      [],
      [keyOf(1), keyOf(1)],
      [new Uint8Array(16)],
      Array.from({ length: 9 }, (_, number) => keyOf(number)),
    ];
    for (const keys of bad) assert.throws(() => new KeyRing(keys), { code: "invalid-argument" });
  });
});

describe("RecentMap", () => {
  it("keeps what was used last, and never more than its maximum", () => {
    const map = new RecentMap<number, number>(100);
    for (let key = 0; key < 1000; key += 1) {
      map.set(key, key);
      assert.equal(map.get(0), 0);
      assert.ok(map.size <= 100);
      for (let recent = Math.max(0, key - 40); recent <= key; recent += 1) {
        assert.ok([...map.values()].includes(recent));
      }
    }
    assert.equal(map.get(1), undefined);
  });
});

describe("ReplayWindow", () => {
  it("takes each counter at most once, and all within 64 of the highest", () => {
    const counters = fc.array(fc.integer({ min: 0, max: 300 }), { maxLength: 200 });
    fc.assert(
      fc.property(counters, (list) => {
        const window = new ReplayWindow();
        const seen = new Set<number>();
        let highest = -1;
        for (const counter of list) {
          const expected = !seen.has(counter) && counter > highest - 64;
          assert.equal(window.accept(BigInt(counter)), expected, `${counter} after ${highest}`);
          if (expected) seen.add(counter);
          highest = Math.max(highest, counter);
        }
      }),
    );
  });
});
