/**
 * The mounted tree of an image is what the kernel's overlayfs shows over its unpacked layers, by
 * `faasnet mount`. Together with trees-claimed.test.ts every image is read in two modes, and every
 * mode in both ways: reading all of six images in all modes takes minutes. Equality over thousands
 * of generated images, each in every mode: scripts/equality.
 */
import assert from "node:assert/strict";
import {
  Lab,
  Registry,
  compareTrees,
  faasnetMount,
  needs,
  unclampedTree,
  walkTree,
  type LabImageName,
} from "../support/lab/index.ts";

const MODES = ["erofs", "loop", "fuse"] as const;
const IMAGES: Readonly<Record<(typeof MODES)[number], readonly LabImageName[]>> = {
  erofs: ["edge"],
  loop: ["pysci", "busybox", "edge"],
  fuse: ["node", "pg", "edge", "edge-zstd"],
};

describe("The tree of an image, by faasnet mount", function () {
  this.timeout(180_000);
  let lab: Lab;
  let registry: Registry;

  before(async function () {
    const images = [...new Set(Object.values(IMAGES).flat())];
    needs(this, { root: true, fuse: true, program: true, images });
    lab = await Lab.create();
    registry = await Registry.start(lab);
  });

  after(async () => {
    await lab[Symbol.asyncDispose]();
  });

  for (const mode of MODES) {
    for (const image of IMAGES[mode]) {
      it(`equals overlayfs over the unpacked layers of ${image} (${mode} mode)`, async () => {
        const expected = await unclampedTree(lab, registry, image);
        const root = lab.path("maps"); // made once, in the first mode
        const mounted = await faasnetMount(lab, registry.reference(image), { mode, root });

        const tree = await walkTree(mounted.folder);

        assert.deepEqual(compareTrees(expected, tree, { fuseNative: mode === "fuse" }), []);
        const { exit, output } = await mounted.end();
        assert.equal(exit, "status 0");
        assert.match(output, /[\d,]+ files, .* in the image, .* fetched; blocks: /);
      });
    }
  }
});
