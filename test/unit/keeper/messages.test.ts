/** Control messages to the keeper are checked before anything is done with them. */
import assert from "node:assert/strict";
import {
  parseFetchAnswer,
  parseRanges,
  parseServeLayer,
  parseServeTree,
  RANGES_MAX,
} from "../../../src/keeper/messages.ts";

const LAYER = "0123456789abcdef".repeat(4);
const SERVE = {
  layer: LAYER,
  mountpoint: "/run/x/l/0",
  size: 1024,
  tarBytes: 700,
  decodedPath: "/d",
  present: [{ start: 0, end: 700 }],
  readWaitMs: 0,
};

describe("keeper messages", () => {
  it("accepts a layer to serve", () => {
    assert.deepEqual(parseServeLayer(SERVE), { ...SERVE, readWaitMs: undefined });
    assert.equal(parseServeLayer({ ...SERVE, mountpoint: "", readWaitMs: 5 }).readWaitMs, 5);
  });

  const wrong: Record<string, object> = {
    "an id that is not 64 hex digits": { layer: "../../etc" },
    "a relative mountpoint": { mountpoint: "l/0" },
    "a path with a zero byte": { decodedPath: "/a\0b" },
    "a path that is too long": { decodedPath: `/${"a".repeat(2000)}` },
    "more tar than device": { tarBytes: 2000 },
    "present bytes behind the tar": { present: [{ start: 0, end: 701 }] },
    "a range that ends before it starts": { present: [{ start: 5, end: 4 }] },
    "a size that is not a number": { size: "1024" },
    "a size beyond 2^53": { size: 2 ** 60 },
  };
  for (const [what, change] of Object.entries(wrong)) {
    it(`refuses ${what}`, () => {
      assert.throws(() => parseServeLayer({ ...SERVE, ...change }), { code: "invalid-argument" });
    });
  }

  it("refuses more ranges than its limit", () => {
    const ranges = Array.from({ length: RANGES_MAX + 1 }, () => ({ start: 0, end: 1 }));
    assert.throws(() => parseRanges({ layer: LAYER, ranges }), { code: "invalid-argument" });
  });

  it("accepts a tree, and an empty context as none", () => {
    const tree = { tree: LAYER, mountpoint: "/c/0", metadataPath: "/m", layers: [LAYER, LAYER] };
    assert.deepEqual(parseServeTree({ ...tree, context: "" }), { ...tree, context: undefined });
    assert.throws(() => parseServeTree({ ...tree, layers: ["x"] }));
  });

  it("accepts fetched bytes of exactly the asked length only", () => {
    const asked = { start: 10, end: 20 };
    const data = new Uint8Array(10);
    assert.equal(parseFetchAnswer({ present: [], data }, asked).data, data);
    assert.throws(() => parseFetchAnswer({ present: [], data: new Uint8Array(9) }, asked));
    assert.throws(() => parseFetchAnswer({ present: [] }, asked));
    assert.throws(() => parseFetchAnswer(null, asked));
  });
});
