import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { DaemonError, errorMessage } from "../../../../src/base/errors.ts";
import type { MapProvider, OrderEntry } from "../../../../src/peer/exchange/index.ts";
import { chainOf, collect, disposeAll, IMAGE, last, LAYER } from "./sim-node.ts";
import type { SimNode } from "./sim-node.ts";

const MAP = randomBytes(3_000_000);
const signal = new AbortController().signal;

function mapOf(bytes: Buffer, delayMs = 0): MapProvider {
  return {
    open: async () => {
      await sleep(delayMs);
      return {
        size: bytes.length,
        pieces: (async function* () {
          for (let at = 0; at < bytes.length; at += 100_000) yield bytes.subarray(at, at + 100_000);
        })(),
      };
    },
  };
}

describe("a map from the tree", () => {
  let nodes: SimNode[] = [];
  afterEach(async () => {
    await disposeAll(nodes);
    nodes = [];
  });

  it("comes whole, though it is being made when it is asked for", async () => {
    nodes = await chainOf([{ maps: mapOf(MAP, 200) }, {}]);
    const map = await last(nodes).client.fetchMap(IMAGE, LAYER, { signal });

    assert.equal(map.size, MAP.length);
    const bytes = await collect(map.pieces);
    const hex = (of: Buffer): string => createHash("sha256").update(of).digest("hex");
    assert.equal(hex(bytes), hex(MAP));
    assert.equal(last(nodes).counters.total.bytesIn, MAP.length);
  });

  it("comes from the next one up where the nearest has not got it", async () => {
    nodes = await chainOf([{ maps: mapOf(MAP) }, {}, {}]);
    const map = await last(nodes).client.fetchMap(IMAGE, LAYER, { signal });

    assert.equal(map.from.id, "n0");
    assert.equal((await collect(map.pieces)).length, MAP.length);
  });

  it("is unavailable when nobody has it", async () => {
    nodes = await chainOf([{}, {}]);
    await assert.rejects(last(nodes).client.fetchMap(IMAGE, LAYER, { signal }), {
      code: "unavailable",
    });
  });

  it("ends with an error when it breaks off", async () => {
    const maps: MapProvider = {
      open: async () => ({
        size: 10,
        pieces: (async function* () {
          yield Buffer.alloc(5);
          throw new DaemonError("data-loss", "the file is damaged");
        })(),
      }),
    };
    nodes = await chainOf([{ maps }, {}]);
    const fetched = async (): Promise<Buffer> => {
      const { pieces } = await last(nodes).client.fetchMap(IMAGE, LAYER, { signal });
      return collect(pieces);
    };

    await assert.rejects(fetched, { code: "unavailable" });
  });

  it("does not make two members wait for each other", async () => {
    const refused = async (): Promise<never> => {
      throw new DaemonError("not-found", "no map");
    };
    nodes = await chainOf([{ maps: mapOf(MAP) }, { maps: { open: refused } }, {}]);
    const [, parent, child] = nodes;
    assert.ok(parent?.position && child?.ref);
    parent.position = { ...parent.position, parent: child.ref };

    const [one, other] = await Promise.all([
      parent.client.fetchMap(IMAGE, LAYER, { signal }),
      child.client.fetchMap(IMAGE, LAYER, { signal }),
    ]);

    assert.deepEqual([one.from.id, other.from.id], ["n0", "n0"]);
    await collect(one.pieces);
    await collect(other.pieces);
  });
});

describe("a fetch order", () => {
  it("is followed from any position, as it grows", async () => {
    const orders = {
      async *since(_image: string, from: number) {
        const entry = (block: number): OrderEntry => ({
          layerId: block < 3 ? LAYER : "5c".repeat(32),
          block,
        });
        yield [entry(from), entry(from + 1)];
        await sleep(120);
        yield Array.from({ length: 5000 }, (_, at) => entry(from + 2 + at));
      },
    };
    const nodes = await chainOf([{ orders }, {}]);
    try {
      const [root, child] = nodes;
      assert.ok(root?.ref && child);
      const batches: [number, number][] = [];
      const entries: OrderEntry[] = [];
      for await (const { at, entries: more } of child.client.followOrder(root.ref, IMAGE, {
        from: 1,
        signal,
      })) {
        batches.push([at, more.length]);
        entries.push(...more);
      }

      assert.deepEqual(batches, [
        [1, 2],
        [3, 4096],
        [4099, 904],
      ]);
      assert.deepEqual(
        entries.map(({ block }) => block),
        Array.from({ length: 5002 }, (_, at) => at + 1),
      );
      assert.equal(entries[1]?.layerId, LAYER);
      assert.equal(entries[2]?.layerId, "5c".repeat(32));
    } finally {
      await disposeAll(nodes);
    }
  });
});

describe("push/pull and probes", () => {
  it("go over the members' TLS", async () => {
    const nodes = await chainOf([{}, {}]);
    try {
      const [root, child] = nodes;
      assert.ok(root?.ref && child);
      const records = randomBytes(500_000);
      const reply = await child.client.pushPull(root.ref, records, { signal });
      assert.ok(Buffer.from(reply).equals(Buffer.concat([Buffer.from("n0:"), records])));
      await child.client.probe(root.ref, { signal });
      await assert.rejects(child.client.pushPull(root.ref, Buffer.alloc(5_000_000), { signal }), {
        code: "invalid-argument",
      });
      await child.client.probe(root.ref, { signal });
      const wrong = { ...root.ref, id: "n7" };
      await assert.rejects(child.client.probe(wrong, { signal }), (error: DaemonError) => {
        assert.match(errorMessage(error), /is for n0, not for n7/);
        return true;
      });
    } finally {
      await disposeAll(nodes);
    }
  });
});
