import assert from "node:assert/strict";
import { createServer } from "node:https";
import type { Server } from "node:https";
import type { AddressInfo } from "node:net";
import type { ServerResponse } from "node:http";
import fc from "fast-check";
import { systemRandom } from "../../../../src/base/random.ts";
import {
  encodeFrame,
  encodeTick,
  FRAME,
  indexPayload,
} from "../../../../src/peer/exchange/frames.ts";
import { Identity } from "../../../../src/peer/transport/identity.ts";
import { BLOCK_BYTES, bytesOfBlock, chainOf, disposeAll, last, refOf, RING } from "./sim-node.ts";
import type { SimNode } from "./sim-node.ts";

const HEAD = encodeFrame(FRAME.block, indexPayload(2, BLOCK_BYTES));
const END = encodeFrame(FRAME.end, indexPayload(2));
const DONE = encodeFrame(FRAME.done, new Uint8Array());
const BODY = encodeFrame(FRAME.data, bytesOfBlock(2));

describe("a parent that is not honest", () => {
  let nodes: SimNode[] = [];
  let server: Server | undefined;
  let answer: (response: ServerResponse) => void = () => undefined;

  beforeEach(async () => {
    nodes = await chainOf([{}, {}, { hedgeMs: 300 }]);
    const identity = Identity.fromRing(RING, { memberId: "n1", random: systemRandom });
    server = createServer(identity.tls, (_request, response) => {
      response.on("error", () => undefined);
      response.writeHead(200);
      answer(response);
    });
    await new Promise<void>((resolve) => server?.listen(0, "127.0.0.1", resolve));
    const reader = last(nodes);
    assert.ok(reader.position !== undefined);
    const { port } = server.address() as AddressInfo;
    reader.position = { ...reader.position, parent: refOf("n1", "127.0.0.1", port) };
    reader.position = { ...reader.position, grandparent: undefined };
  });
  afterEach(async () => {
    await disposeAll(nodes);
    server?.closeAllConnections();
    await new Promise((resolve) => server?.close(resolve));
  });

  const lies: readonly (readonly [string, readonly Buffer[]])[] = [
    ["more than the block", [HEAD, BODY, encodeFrame(FRAME.data, Buffer.alloc(1))]],
    [
      "an end that is too early",
      [HEAD, encodeFrame(FRAME.data, bytesOfBlock(2).subarray(0, 9)), END],
    ],
    ["another block", [encodeFrame(FRAME.block, indexPayload(3, BLOCK_BYTES)), BODY]],
    ["another length", [encodeFrame(FRAME.block, indexPayload(2, 5))]],
    ["data without a head", [BODY]],
    ["two heads", [HEAD, HEAD]],
    ["an unknown frame", [Buffer.of(77, 0, 0, 0, 0)]],
    ["a frame without end", [Buffer.of(FRAME.order, 255, 255, 255, 255)]],
    ["a frame of another reply", [encodeFrame(FRAME.size, Buffer.alloc(8))]],
    ["a tick that is malformed", [encodeFrame(FRAME.tick, Buffer.of(200, 1))]],
    ["a reply that is complete without the block", [DONE]],
    ["half a block that is not here", [HEAD, encodeFrame(FRAME.notHere, indexPayload(2))]],
  ];
  for (const [name, frames] of lies) {
    it(`is convicted of ${name}, and the reader gets right bytes`, async () => {
      answer = (response) => {
        response.end(Buffer.concat(frames));
      };
      const reader = last(nodes);

      assert.ok((await reader.read(2)).equals(bytesOfBlock(2)));
      assert.deepEqual(reader.convicted, ["n1"]);
    });
  }

  it("is not convicted of a reply that breaks off", async () => {
    answer = (response) => {
      response.write(
        Buffer.concat([HEAD, encodeFrame(FRAME.data, bytesOfBlock(2).subarray(0, 999))]),
      );
      setTimeout(() => response.destroy(), 20);
    };
    const reader = last(nodes);

    assert.ok((await reader.read(2)).equals(bytesOfBlock(2)));
    assert.deepEqual(reader.convicted, []);
  });

  it("is found out when it breaks off after wrong bytes: nothing of both is mixed", async () => {
    answer = (response) => {
      response.write(Buffer.concat([HEAD, encodeFrame(FRAME.data, Buffer.alloc(999, 1))]));
      setTimeout(() => response.destroy(), 20);
    };
    const reader = last(nodes);

    await assert.rejects(reader.read(2), { code: "aborted" });
    // It is asked last now, and the one that is asked first has the block.
    assert.ok((await reader.read(2)).equals(bytesOfBlock(2)));
    assert.deepEqual(reader.convicted, []);
  });

  it("keeps a reader waiting with ticks no longer than a member that goes in a circle", async () => {
    answer = (response) => {
      response.write(encodeTick(["n7", "n2"]));
    };
    const reader = last(nodes);

    assert.ok((await reader.read(2)).equals(bytesOfBlock(2)));
    assert.deepEqual(reader.convicted, []);
  });

  it("does no harm whatever it sends", async () => {
    const parts = [
      HEAD,
      BODY,
      END,
      DONE,
      encodeTick(["n0"]),
      Buffer.of(4, 0, 0),
      Buffer.alloc(50, 2),
    ];
    const plans = fc.sample(
      fc.array(fc.tuple(fc.nat(parts.length - 1), fc.nat(3), fc.nat(200)), { maxLength: 6 }),
      { numRuns: 40, seed: 11 },
    );
    const reader = last(nodes);
    for (const plan of plans) {
      answer = (response) => {
        for (const [which, change, at] of plan) {
          const bytes = Buffer.from(parts[which] ?? "");
          if (change === 0) bytes[at % bytes.length] = at;
          response.write(change === 1 ? bytes.subarray(0, at) : bytes);
        }
        response.end();
      };
      const bytes = await reader.read(2).catch(async () => reader.read(2));
      assert.ok(bytes.equals(bytesOfBlock(2)));
    }
  });
});
