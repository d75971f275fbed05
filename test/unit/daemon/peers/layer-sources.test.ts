/** Where a layer's blocks come from among peers: which source is asked when. */
import assert from "node:assert/strict";
import { DaemonError, errorCode } from "../../../../src/base/errors.ts";
import { isPass } from "../../../../src/block/block-source.ts";
import type { BlobRun, BlockSource, SourceReadiness } from "../../../../src/block/index.ts";
import {
  GuardedSource,
  JOIN_MS_MAX,
  TreesSource,
} from "../../../../src/daemon/peers/layer-sources.ts";
import type { LayerSourceParts } from "../../../../src/daemon/peers/layer-sources.ts";
import { TreesAbove } from "../../../../src/daemon/peers/trees-above.ts";
import { parseDigest } from "../../../../src/oci/index.ts";
import type { Digest } from "../../../../src/oci/index.ts";
import type { TreePosition, TreeSource } from "../../../../src/peer/index.ts";
import { FakeClock } from "../../../support/block/fake-clock.ts";

const IMAGE = parseDigest(`sha256:${"a".repeat(64)}`);
const OTHER = parseDigest(`sha256:${"b".repeat(64)}`);
const LAYER = "c".repeat(64);
const never = new AbortController().signal;

const run: BlobRun = {
  layerId: LAYER,
  blobDigest: IMAGE,
  blobBytes: 100,
  range: { start: 10, end: 40 },
  firstBlock: 0,
  lastBlock: 0,
};

const peer = {
  id: "n1",
  boot: "0".repeat(32),
  address: { host: "10.0.0.1", port: 7411 },
  exchangePort: 7411,
  zone: "",
  version: 1,
};

function positionOf(isRoot: boolean): TreePosition {
  const epoch = { counter: 1, manager: "n1" };
  return { epoch, depth: isRoot ? 0 : 1, root: peer, isRoot, ...(isRoot ? {} : { parent: peer }) };
}

class Standing {
  readonly clock = new FakeClock();
  readonly joined = new Map<Digest, number>();
  readonly positions = new Map<string, TreePosition>();
  tokens: SourceReadiness = "skip";
  readonly spent: number[] = [];

  get parts(): LayerSourceParts {
    return {
      images: {
        imagesWith: () => [...this.joined.keys()],
        joinedMs: (image) => this.joined.get(image as Digest),
      },
      position: (image) => this.positions.get(image),
      tokens: {
        readiness: () => this.tokens,
        spend: (_image, bytes) => this.spent.push(bytes),
      },
      clock: this.clock,
    };
  }
}

function fakeTree(fetch: BlockSource["fetch"]): TreeSource {
  const fake: Pick<TreeSource, "fetch" | "hasPeers" | "name" | "onBadBlock" | "origin"> = {
    name: "parent",
    origin: "tree",
    hasPeers: true,
    fetch,
    onBadBlock: () => undefined,
  };
  return fake as TreeSource;
}

const registry: BlockSource = {
  name: "registry",
  origin: "registry.example",
  fetch: () => Promise.resolve(bytesOf("registry")),
};

async function* bytesOf(text: string): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(Buffer.from(text));
}

function sourcesOf(
  standing: Standing,
  tree: TreeSource,
  isRelayed = true,
): [TreesSource, GuardedSource] {
  const { parts } = standing;
  const guarded = new GuardedSource(registry, { id: LAYER, isRelayed }, parts);
  return [new TreesSource(LAYER, parts, () => tree), guarded];
}

const whole = fakeTree(() => Promise.resolve(bytesOf("tree")));

describe("a layer's sources among peers", () => {
  it("are the registry alone while no image of the layer is in a tree", () => {
    const [trees, guarded] = sourcesOf(new Standing(), whole);

    assert.equal(trees.readiness(), "skip");
    assert.equal(guarded.readiness(0), "ready");
  });

  it("wait for the first position, but not for long", () => {
    const standing = new Standing();
    standing.joined.set(IMAGE, standing.clock.nowMs());
    const [trees, guarded] = sourcesOf(standing, whole);
    const untilMs = standing.clock.nowMs() + JOIN_MS_MAX;

    assert.deepEqual(trees.readiness(), { untilMs });
    assert.deepEqual(guarded.readiness(0), { untilMs });
    standing.joined.set(IMAGE, standing.clock.nowMs() - JOIN_MS_MAX);
    assert.equal(trees.readiness(), "skip");
    assert.equal(guarded.readiness(0), "ready");
  });

  it("are the registry for the root, and the tree for all others", () => {
    const standing = new Standing();
    standing.joined.set(IMAGE, 0);
    const [trees, guarded] = sourcesOf(standing, whole);

    standing.positions.set(IMAGE, positionOf(true));
    assert.deepEqual([trees.readiness(), guarded.readiness(0)], ["skip", "ready"]);
    standing.positions.set(IMAGE, positionOf(false));
    assert.deepEqual([trees.readiness(), guarded.readiness(0)], ["ready", "skip"]);
  });

  it("prefer the tree that has a place for us to one that we are joining", () => {
    const standing = new Standing();
    standing.joined.set(OTHER, standing.clock.nowMs());
    standing.joined.set(IMAGE, 0);
    standing.positions.set(IMAGE, positionOf(false));
    const [trees] = sourcesOf(standing, whole);

    assert.equal(trees.readiness(), "ready");
  });

  it("let a member read the registry with a token, and count what it read", async () => {
    const standing = new Standing();
    standing.joined.set(IMAGE, 0);
    standing.positions.set(IMAGE, positionOf(false));
    standing.tokens = "ready";
    const [, guarded] = sourcesOf(standing, whole);

    assert.equal(guarded.readiness(0), "ready");
    await guarded.fetch(run, { signal: never, priority: 0 });
    assert.deepEqual(standing.spent, [30]);
    standing.positions.set(IMAGE, positionOf(true));
    await guarded.fetch(run, { signal: never, priority: 0 });
    assert.deepEqual(standing.spent, [30], "the root needs no token");
  });

  it("let a member read the registry for readers alone, and nothing along with it", () => {
    const standing = new Standing();
    standing.joined.set(IMAGE, 0);
    standing.positions.set(IMAGE, positionOf(false));
    standing.tokens = "ready";
    const [, guarded] = sourcesOf(standing, whole);

    assert.deepEqual(
      ([0, 1, 2, 3] as const).map((priority) => guarded.readiness(priority)),
      ["ready", "skip", "skip", "skip"],
    );
    assert.ok(guarded.isScarce);
    standing.positions.set(IMAGE, positionOf(true));
    assert.equal(guarded.readiness(3), "ready");
    assert.ok(!guarded.isScarce);
  });

  it("are the registry for everybody where blocks do not travel alone", () => {
    const standing = new Standing();
    standing.joined.set(IMAGE, 0);
    standing.positions.set(IMAGE, positionOf(false));
    const [, guarded] = sourcesOf(standing, whole, false);

    assert.equal(guarded.readiness(2), "ready");
    assert.ok(!guarded.isScarce);
  });

  it("tells another parent or root from any other word of the manager", () => {
    const above = new TreesAbove();
    assert.ok(!above.note(IMAGE, undefined));
    assert.ok(above.note(IMAGE, positionOf(false)));
    assert.ok(!above.note(IMAGE, { ...positionOf(false), epoch: { counter: 2, manager: "n1" } }));
    assert.ok(above.note(IMAGE, positionOf(true)));
    assert.ok(above.note(IMAGE, undefined));
    assert.ok(!above.note(IMAGE, undefined));
  });

  it("blame nobody for a block that no member above has, at once or half-way", async () => {
    const standing = new Standing();
    standing.joined.set(IMAGE, 0);
    standing.positions.set(IMAGE, positionOf(false));
    const lost = new DaemonError("unavailable", "no member above us has block 3");
    const wrong = new DaemonError("aborted", "two members sent different bytes");
    let failure = lost;
    const atOnce = fakeTree(() => Promise.reject(failure));
    const halfWay = fakeTree(() =>
      Promise.resolve(
        (async function* () {
          yield* bytesOf("x");
          throw failure;
        })(),
      ),
    );
    const read = async (tree: TreeSource): Promise<unknown> => {
      try {
        const [trees] = sourcesOf(standing, tree);
        const stream = await trees.fetch(run, { signal: never, priority: 0 });
        for await (const piece of stream) assert.ok(piece.length > 0);
      } catch (error) {
        return error;
      }
      return undefined;
    };

    assert.ok(isPass(await read(atOnce)));
    assert.ok(isPass(await read(halfWay)));
    failure = wrong;
    assert.equal(errorCode(await read(atOnce)), "aborted");
    assert.ok(!isPass(await read(halfWay)));
  });
});
