/** Requests between members of different builds: the highest version that both speak. */
import assert from "node:assert/strict";
import {
  mapResource,
  orderResource,
  parseTarget,
  targetOf,
} from "../../../../src/peer/exchange/protocol.ts";
import { BLOB_DIGEST, IMAGE, LAYER, bytesOfBlock, chainOf, disposeAll } from "./sim-node.ts";
import type { SimNode } from "./sim-node.ts";

const OLD = { lowest: 1, highest: 1 };
const BOTH = { lowest: 1, highest: 2 };
const NEXT = { lowest: 2, highest: 3 };
const LATER = { lowest: 3, highest: 3 };

describe("Members of several versions", () => {
  let nodes: SimNode[] = [];
  afterEach(async () => {
    await disposeAll(nodes);
  });

  async function read(versions: readonly (typeof OLD)[]): Promise<Buffer | undefined> {
    nodes = await chainOf(versions.map((each) => ({ versions: each })));
    return nodes.at(-1)?.read(3);
  }

  for (const chain of [
    [OLD, BOTH, OLD, BOTH],
    [BOTH, OLD, BOTH],
    [BOTH, NEXT],
    [NEXT, BOTH],
  ]) {
    const name = chain.map(({ lowest, highest }) => `${lowest}-${highest}`).join(", ");
    it(`read through each other where they are adjacent: ${name}`, async () => {
      assert.ok((await read(chain))?.equals(bytesOfBlock(3)));
      for (const { convicted, troubles } of nodes)
        assert.deepEqual([...convicted, ...troubles], []);
    });
  }

  it("are refused by name where they are not, and convict nobody", async () => {
    nodes = await chainOf([{ versions: OLD }, { versions: LATER }]);
    const [old, later] = nodes;
    assert.ok(old?.ref !== undefined && later?.ref !== undefined);
    const { signal } = new AbortController();

    await assert.rejects(later.client.probe(old.ref, { signal }), {
      code: "failed-precondition",
      message: /exchange version 3; this node speaks 1/,
    });
    await assert.rejects(old.client.pushPull(later.ref, new Uint8Array(1), { signal }), {
      code: "failed-precondition",
      message: /exchange version 1; this node speaks 3/,
    });
    await assert.rejects(later.read(3));
    assert.deepEqual([...later.convicted, ...old.convicted], []);
  });
});

describe("A request's target", () => {
  const parse = (target: string, versions = BOTH) => parseTarget("GET", target, versions);

  it("is the same resource in each version that is spoken", () => {
    for (const version of [1, 2]) {
      assert.deepEqual(parse(targetOf(version, "probe")), { kind: "probe" });
      assert.deepEqual(parse(targetOf(version, orderResource(IMAGE, 7))), {
        kind: "order",
        image: IMAGE,
        from: 7,
      });
      assert.deepEqual(parse(targetOf(version, mapResource(LAYER, BLOB_DIGEST, ["a", "b"]))), {
        kind: "map",
        diffId: LAYER,
        image: BLOB_DIGEST,
        path: ["a", "b"],
      });
    }
  });

  it("is refused in another, whatever follows", () => {
    for (const resource of ["probe", "a/resource/of/later"]) {
      assert.throws(() => parse(targetOf(3, resource)), {
        code: "failed-precondition",
        message: "exchange version 3; this node speaks 1 to 2",
      });
    }
    for (const version of ["", "0", "-1", "1.0", "01", "1e0", "9999", "x"]) {
      assert.throws(() => parse(`/faasnet/${version}/probe`), { code: "not-found" }, version);
    }
  });
});
