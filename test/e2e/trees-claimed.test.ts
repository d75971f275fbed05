/**
 * The mounted tree of an image is what the kernel's overlayfs shows over its unpacked layers, in
 * every mode, through containerd. By `faasnet mount`: trees-mounted.test.ts.
 */
import assert from "node:assert/strict";
import {
  IMAGE_WORK,
  Lab,
  SNAPSHOTTER,
  compareTrees,
  imageFacts,
  mountView,
  needs,
  startStack,
  unclampedTree,
  unmountUnder,
  walkTree,
  type LabImageName,
  type Stack,
} from "../support/lab/index.ts";

const MODES = ["erofs", "loop", "fuse"] as const;
const IMAGES: Readonly<Record<(typeof MODES)[number], readonly LabImageName[]>> = {
  erofs: [...IMAGE_WORK.map(({ image }) => image), "edge", "edge-zstd"],
  loop: ["edge"],
  fuse: ["edge-zstd"],
};

describe("The tree of an image, through containerd", function () {
  this.timeout(180_000);
  let lab: Lab;
  let stack: Stack;

  before(async function () {
    needs(this, {
      root: true,
      fuse: true,
      program: true,
      containerd: ["2"],
      images: IMAGES.erofs,
    });
    lab = await Lab.create();
    stack = await startStack(lab);
  });

  after(async () => {
    await lab[Symbol.asyncDispose]();
  });

  for (const mode of MODES) {
    describe(`in ${mode} mode`, () => {
      before(async () => {
        // The same state in every mode: the maps are made once.
        await stack.daemon.reconfigure(stack.containerd.address, { mode });
        assert.equal((await stack.daemon.status()).mode, mode);
      });

      for (const image of IMAGES[mode]) {
        it(`equals overlayfs over the unpacked layers of ${image}`, async () => {
          const { containerd, registry } = stack;
          const expected = await unclampedTree(lab, registry, image);
          await containerd.pull(registry.reference(image), { snapshotter: SNAPSHOTTER });
          const top = (await imageFacts(registry, image)).chainIds.at(-1) ?? "";
          const folder = await mountView(lab, containerd, top, SNAPSHOTTER);

          const tree = await walkTree(folder);
          await unmountUnder(folder);

          assert.deepEqual(compareTrees(expected, tree, { fuseNative: mode === "fuse" }), []);
        });
      }
    });
  }
});
