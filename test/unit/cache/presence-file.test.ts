/** The presence bitmap on its own. */
import assert from "node:assert/strict";
import { countPresent, PresenceFile } from "../../../src/cache/presence-file.ts";
import { SimFiles } from "../../support/block/sim-files.ts";

const IDENTITY = { kind: "decoded", blockCount: 20, tableSha256: Buffer.alloc(32, 7) } as const;
const PATH = "/cache/decoded/x.present";

async function open(files: SimFiles, identity: typeof IDENTITY = IDENTITY): Promise<PresenceFile> {
  return PresenceFile.open(await files.open(PATH), identity);
}

describe("PresenceFile", () => {
  it("remembers what was set and cleared", async () => {
    const files = new SimFiles();
    const presence = await open(files);
    await presence.set([0, 7, 8, 19], () => true);
    await presence.clear([7]);
    const again = await open(files);
    assert.deepEqual(
      Array.from({ length: 20 }, (_, index) => index).filter((index) => again.has(index)),
      [0, 8, 19],
    );
    assert.equal(countPresent(files.bytesOf(PATH) ?? Buffer.alloc(0)), 3);
  });

  it("starts empty for another table, a torn header or a foreign file", async () => {
    const files = new SimFiles();
    await (await open(files)).set([1, 2], () => true);
    const other = { ...IDENTITY, tableSha256: Buffer.alloc(32, 8) } as unknown as typeof IDENTITY;
    assert.equal((await open(files, other)).has(1), false);
    assert.equal((await open(files)).has(1), false);
    await (await files.open(PATH)).writeAt(Buffer.from("garbage"), 20);
    assert.equal((await open(files)).has(1), false);
    assert.equal(countPresent(Buffer.from("not a bitmap at all")), 0);
  });

  it("asks when it is its turn whether a block is still there", async () => {
    const files = new SimFiles();
    const presence = await open(files);
    let isThere = true;
    const first = presence.set([1], () => true);
    const second = presence.set([2], () => isThere);
    isThere = false;
    await Promise.all([first, second]);
    assert.equal(presence.has(2), false);
  });

  it("has a clearing on the disk before it resolves", async () => {
    const files = new SimFiles();
    files.disk.makeFolder("/cache/decoded");
    const presence = await open(files);
    files.disk.syncAll();
    await presence.set([3, 4], () => true);
    await presence.sync();
    await presence.clear([3]);
    files.losePower();
    const again = await open(files);
    assert.deepEqual([again.has(3), again.has(4)], [false, true]);
  });
});
