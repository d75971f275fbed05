import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { FETCH_PRIORITY } from "../../../../src/block/index.ts";
import {
  BLOCK_BYTES,
  BLOCKS,
  BLOB,
  bytesOfBlock,
  chainOf,
  disposeAll,
  last,
  runOf,
} from "./sim-node.ts";
import type { Registry, SimNode } from "./sim-node.ts";

describe("a chain of four nodes", () => {
  let nodes: SimNode[] = [];
  afterEach(async () => {
    await disposeAll(nodes);
    nodes = [];
  });

  it("brings every block to its end, through all of them, and asks the registry once", async () => {
    nodes = await chainOf([{}, { isEager: true }, { isEager: true }, {}]);

    const bytes = await last(nodes).read(0, BLOCKS - 1);

    assert.ok(bytes.equals(BLOB));
    assert.deepEqual(
      nodes[0]?.registryReads.sort((a, b) => a - b),
      [...Array(BLOCKS).keys()],
    );
    for (const node of nodes.slice(0, 3)) {
      assert.equal(node.counters.total.bytesOut, BLOB.length, node.id);
      assert.equal(node.counters.total.blocksOut, BLOCKS, node.id);
    }
    assert.deepEqual(
      nodes.map(({ counters }) => counters.total.failures),
      [0, 0, 0, 0],
    );
  });

  it("passes bytes on while they arrive", async () => {
    let release: (() => void) | undefined;
    const half = new Promise<void>((resolve) => (release = resolve));
    const registry: Registry = async function* (index) {
      yield bytesOfBlock(index).subarray(0, BLOCK_BYTES / 2);
      await half;
      yield bytesOfBlock(index).subarray(BLOCK_BYTES / 2);
    };
    nodes = await chainOf([{ registry }, { isEager: true }, { isEager: true }, {}]);
    const signal = new AbortController().signal;

    const pieces = await last(nodes).source.fetch(runOf(0), { signal, priority: 0 });
    let received = 0;
    for await (const piece of pieces) {
      received += piece.length;
      if (received === BLOCK_BYTES / 2) release?.();
    }

    assert.equal(received, BLOCK_BYTES);
  });

  it("keeps the last bytes of a block back until its digest is right", async () => {
    let release: (() => void) | undefined;
    const verified = new Promise<void>((resolve) => (release = resolve));
    nodes = await chainOf([{}, {}]);
    const [root] = nodes;
    assert.ok(root !== undefined);
    root.open = async () => ({
      length: BLOCK_BYTES,
      pieces: (async function* () {
        yield bytesOfBlock(0);
      })(),
      verdict: verified,
    });

    const signal = new AbortController().signal;
    const pieces = await last(nodes).source.fetch(runOf(0), { signal, priority: 0 });
    let received = 0;
    let heldAt = 0;
    for await (const piece of pieces) {
      received += piece.length;
      if (received < BLOCK_BYTES - 4096 || heldAt > 0) continue;
      heldAt = received;
      setTimeout(() => {
        assert.equal(received, heldAt);
        release?.();
      }, 30);
    }

    assert.equal(heldAt, BLOCK_BYTES - 4096);
    assert.equal(received, BLOCK_BYTES);
  });

  it("convicts only the liar, and everybody gets right bytes", async () => {
    const tamper = (_index: number, _offset: number, piece: Uint8Array): Uint8Array => {
      const copy = Buffer.from(piece);
      copy[0] = (copy[0] ?? 0) ^ 1;
      return copy;
    };
    nodes = await chainOf([{}, { isEager: true, tamper }, { isEager: true }, {}]);
    const reader = last(nodes);

    // The first read goes wrong at n2, which sees who lied; the stream to n3 is only cut off, and
    // n3 goes on to n1, its grandparent, which lies to it as well.
    const bytes = await reader.read(5).catch(async () => reader.read(5));

    assert.ok(bytes.equals(bytesOfBlock(5)));
    assert.deepEqual(nodes[2]?.convicted, ["n1"]);
    assert.deepEqual(
      nodes.flatMap(({ convicted }) => convicted).filter((id) => id !== "n1"),
      [],
    );
    // n2 leaves it alone from now on.
    const [, liar] = nodes;
    const before = liar?.wanted.length;
    const next = await last(nodes.slice(0, 3)).read(6);
    assert.ok(next.equals(bytesOfBlock(6)));
    assert.equal(liar?.wanted.length, before);
  });

  it("has bulk and demand beside each other", async () => {
    nodes = await chainOf([{}, { isEager: true }, {}]);
    const reader = last(nodes);
    const bulk = Promise.all(
      [0, 4, 8, 12].map(async (first) =>
        reader.read(first, first + 3, { priority: FETCH_PRIORITY.prefetch }),
      ),
    );
    const one = await reader.read(20);

    assert.ok(one.equals(bytesOfBlock(20)));
    assert.ok(Buffer.concat(await bulk).equals(BLOB.subarray(0, 16 * BLOCK_BYTES)));
  });

  it("lives through a registry that is slow, without anybody being asked beside", async () => {
    const registry: Registry = async function* (index) {
      await sleep(350);
      yield bytesOfBlock(index);
    };
    nodes = await chainOf([{ registry }, { isEager: true }, { isEager: true }, {}]);

    const bytes = await last(nodes).read(3);

    assert.ok(bytes.equals(bytesOfBlock(3)));
    assert.deepEqual(
      nodes.map(({ counters }) => counters.total.hedges),
      [0, 0, 0, 0],
    );
    assert.ok(last(nodes).counters.total.ticksIn >= 4);
  });

  it("frees everything when a reader gives up", async () => {
    const registry: Registry = async function* () {
      await new Promise(() => undefined);
      yield Buffer.alloc(0);
    };
    nodes = await chainOf([{ registry }, { isEager: true }, {}]);
    const controller = new AbortController();
    const reading = last(nodes).read(3, 3, { signal: controller.signal });
    const streams = (): number[] => nodes.map(({ server }) => server.counts.streams);
    await until(() => streams()[0] === 1 && streams()[1] === 1);
    controller.abort();

    await assert.rejects(reading, { code: "canceled" });
    await until(() => streams()[1] === 0);
    assert.deepEqual(streams(), [1, 0, 0]);
    assert.equal(last(nodes).waits.size, 0);
    assert.equal(nodes[1]?.waits.size, 1); // its own flight goes on: that is the resolver's to end
  });
});

async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 300 && !condition(); turn += 1) await sleep(10);
  assert.ok(condition());
}
