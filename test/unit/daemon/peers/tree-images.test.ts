/** Which trees a node is in, its leave to read the registry, and the order it hands down. */
import assert from "node:assert/strict";
import { ImageOrders } from "../../../../src/daemon/peers/image-orders.ts";
import { RegistryTokens } from "../../../../src/daemon/peers/registry-tokens.ts";
import { TREE_IDLE_MS, TreeImages } from "../../../../src/daemon/peers/tree-images.ts";
import type { ImageRecord } from "../../../../src/daemon/image-store.ts";
import { digestHex, parseDiffId, parseDigest } from "../../../../src/oci/index.ts";
import { FakeClock, settle } from "../../../support/block/fake-clock.ts";

const hex = (digit: string): string => digit.repeat(64);

function imageOf(name: string, layers: readonly string[]): ImageRecord {
  return {
    manifestDigest: parseDigest(`sha256:${hex(name)}`),
    reference: "registry.example/x:1",
    sources: [],
    manifest: "{}",
    config: "{}",
    layers: layers.map((layer) => ({
      diffId: parseDiffId(`sha256:${hex(layer)}`),
      blobDigest: parseDigest(`sha256:${hex(layer)}`),
      blobBytes: 1,
      mediaType: "application/vnd.oci.image.layer.v1.tar",
    })),
  };
}

describe("TreeImages", () => {
  const first = imageOf("1", ["a", "b"]);
  const second = imageOf("2", ["a"]);

  function start(): { images: TreeImages; clock: FakeClock; told: string[] } {
    const clock = new FakeClock();
    const told: string[] = [];
    const node = {
      join: (image: string) => told.push(`join ${image.slice(7, 8)}`),
      leave: (image: string) => told.push(`leave ${image.slice(7, 8)}`),
    };
    return { images: new TreeImages(node, clock), clock, told };
  }

  it("joins once, and knows the images of a layer in the order of joining", () => {
    const { images, told } = start();

    for (const image of [first, second, first]) images.use(image);

    assert.deepEqual(told, ["join 1", "join 2"]);
    const found = images.imagesWith(hex("a"));
    assert.deepEqual(found, [first.manifestDigest, second.manifestDigest]);
    assert.deepEqual(images.imagesWith(hex("b")), [first.manifestDigest]);
    images[Symbol.dispose]();
  });

  it("leaves 15 minutes after the last use, never while containers or an ensure use it", async () => {
    const { images, clock, told } = start();
    let mounted = true;
    images.watchMounts((image) => mounted && image === first);
    images.use(first);
    const end = images.ensuring(second);

    await clock.advance(3 * TREE_IDLE_MS);
    assert.deepEqual(told, ["join 1", "join 2"]);
    mounted = false;
    end();
    await clock.advance(TREE_IDLE_MS - 120_000);
    assert.equal(told.length, 2);
    await clock.advance(240_000);
    assert.deepEqual(told.slice(2).sort(), ["leave 1", "leave 2"]);
    assert.deepEqual(images.imagesWith(hex("a")), []);
    images.use(first);
    assert.equal(told.at(-1), "join 1");
    images[Symbol.dispose]();
    assert.equal(clock.pendingTimers, 0);
  });

  it("knows which images are being made mountable", () => {
    const { images } = start();
    const end = images.ensuring(first);

    assert.ok(images.isEnsuring(first.manifestDigest));
    end();
    end();
    assert.ok(!images.isEnsuring(first.manifestDigest));
    images[Symbol.dispose]();
  });
});

describe("RegistryTokens", () => {
  it("asks when a block needs it, and lets as much pass as was granted", async () => {
    const clock = new FakeClock();
    const asked: number[] = [];
    let woken = 0;
    using tokens = new RegistryTokens({
      ask: (_image, bytes) => {
        asked.push(bytes);
        return Promise.resolve(true);
      },
      clock,
    });
    tokens.onGranted(() => (woken += 1));

    assert.notEqual(tokens.readiness("x"), "ready");
    await settle();
    assert.equal(woken, 1);
    assert.equal(tokens.readiness("x"), "ready");
    tokens.spend("x", asked[0] ?? 0);
    assert.notEqual(tokens.readiness("x"), "ready");
    assert.equal(asked.length, 1, "not again within the pause");
  });

  it("waits after a refusal", async () => {
    const clock = new FakeClock();
    let asked = 0;
    using tokens = new RegistryTokens({
      ask: () => {
        asked += 1;
        return Promise.resolve(false);
      },
      clock,
    });
    tokens.onGranted(() => assert.fail("nothing was granted"));

    tokens.readiness("x");
    await settle();
    assert.equal(tokens.readiness("x"), "skip");
    assert.equal(asked, 1);
    await clock.advance(1000);
    assert.notEqual(tokens.readiness("x"), "skip");
    assert.equal(asked, 2);
  });

  it("does not leave a node without a manager unable to read", async () => {
    const clock = new FakeClock();
    let woken = 0;
    using tokens = new RegistryTokens({
      ask: (_image, _bytes, { signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => {
            reject(new Error("no answer"));
          });
        }),
      clock,
    });
    tokens.onGranted(() => (woken += 1));

    tokens.readiness("x");
    await clock.advance(2999);
    assert.equal(woken, 0);
    await clock.advance(2);
    assert.equal(woken, 1);
    assert.equal(tokens.readiness("x"), "ready");
  });

  it("forgets a token that was not used at once", async () => {
    const clock = new FakeClock();
    using tokens = new RegistryTokens({ ask: () => Promise.resolve(true), clock });

    tokens.readiness("x");
    await settle();
    assert.equal(tokens.readiness("x"), "ready");
    await clock.advance(1001);
    assert.notEqual(tokens.readiness("x"), "ready");
  });

  it("asks nobody when the root is gone, but not time and again", async () => {
    const clock = new FakeClock();
    using tokens = new RegistryTokens({ ask: () => Promise.resolve(false), clock });

    tokens.rootLost("x");
    assert.equal(tokens.readiness("x"), "ready");
    assert.notEqual(tokens.readiness("y"), "ready");
    tokens.spend("x", 64 * 1024 * 1024);
    tokens.rootLost("x");
    assert.notEqual(tokens.readiness("x"), "ready");
    await clock.advance(5001);
    tokens.rootLost("x");
    assert.equal(tokens.readiness("x"), "ready");
  });
});

describe("ImageOrders", () => {
  it("gives each image its layers' blocks in order, then follows, until it is told to stop", async () => {
    const clock = new FakeClock();
    const node = { join: () => undefined, leave: () => undefined };
    using images = new TreeImages(node, clock);
    const image = imageOf("1", ["a", "b"]);
    images.use(image);
    const layer = digestHex(image.layers[0]?.diffId ?? parseDiffId(`sha256:${hex("0")}`));
    const orders = new ImageOrders(images);
    orders.add(layer, 7);
    orders.add(hex("b"), 0);
    orders.add(hex("f"), 1);
    const stop = new AbortController();
    const seen: string[] = [];
    const reading = (async () => {
      for await (const batch of orders.since(image.manifestDigest, 1, { signal: stop.signal })) {
        seen.push(...batch.map(({ layerId, block }) => `${layerId.slice(0, 1)}${block}`));
      }
    })();
    await settle();
    assert.deepEqual(seen, ["b0"]);
    orders.add(layer, 8);
    await settle();
    assert.deepEqual(seen, ["b0", "a8"]);
    stop.abort();
    await reading;
  });

  it("has none of an image that is not used", async () => {
    const orders = new ImageOrders({ imagesWith: () => [], image: () => undefined });
    const since = orders.since(`sha256:${hex("9")}`, 0, { signal: new AbortController().signal });

    await assert.rejects(since.next(), { code: "not-found" });
  });
});
