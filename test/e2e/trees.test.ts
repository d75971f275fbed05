/**
 * The mounted tree of an image is what the kernel's overlayfs shows over its unpacked layers: in
 * every mode, through containerd and by `faasnet mount`. Every image is read in two modes, and
 * every mode in both ways: reading all of six images in all modes takes minutes. Equality over
 * thousands of generated images, each in every mode: scripts/equality.
 */
import assert from "node:assert/strict";
import {
  IMAGE_WORK,
  Lab,
  Registry,
  SNAPSHOTTER,
  compareTrees,
  expectedTree,
  faasnetMount,
  imageFacts,
  mountView,
  needs,
  startStack,
  unmountUnder,
  walkTree,
  type LabImageName,
  type MountMode,
  type Stack,
  type TreeEntry,
  type TreeManifest,
} from "../support/lab/index.ts";

const MODES = ["erofs", "loop", "fuse"] as const satisfies readonly MountMode[];
type Mode = (typeof MODES)[number];
const IMAGES: readonly LabImageName[] = [
  ...IMAGE_WORK.map(({ image }) => image),
  "edge",
  "edge-zstd",
];
const CONTAINERD_IMAGES: Readonly<Record<Mode, readonly LabImageName[]>> = {
  erofs: IMAGES,
  loop: ["edge"],
  fuse: ["edge-zstd"],
};
const MOUNT_IMAGES: Readonly<Record<Mode, readonly LabImageName[]>> = {
  erofs: ["edge"],
  loop: ["pysci", "busybox", "edge"],
  fuse: ["node", "pg", "edge", "edge-zstd"],
};

/**
 * containerd sets times before 1970 to 1970 when it unpacks a layer (its archive package's
 * boundTime), so the kernel's tree lacks what the layer says and what we show.
 */
function unclamped(manifest: TreeManifest): TreeManifest {
  const path = "./edge/old";
  const entry: TreeEntry | undefined = manifest.get(path);
  if (entry === undefined) return manifest;
  return new Map([...manifest, [path, { ...entry, mtime: "-2.000000000" }]]);
}

const needed = {
  root: true,
  fuse: true,
  program: true,
  containerd: ["2"],
  images: IMAGES,
} as const;

describe("The tree of an image, through containerd", function () {
  this.timeout(180_000);
  let lab: Lab;
  let stack: Stack;

  before(async function () {
    needs(this, needed);
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

      for (const image of CONTAINERD_IMAGES[mode]) {
        it(`equals overlayfs over the unpacked layers of ${image}`, async () => {
          const { containerd, registry } = stack;
          const expected = unclamped(await expectedTree(lab, registry, image));
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

describe("The tree of an image, by faasnet mount", function () {
  this.timeout(180_000);
  let lab: Lab;
  let registry: Registry;

  before(async function () {
    needs(this, needed);
    lab = await Lab.create();
    registry = await Registry.start(lab);
  });

  after(async () => {
    await lab[Symbol.asyncDispose]();
  });

  for (const mode of MODES) {
    for (const image of MOUNT_IMAGES[mode]) {
      it(`equals overlayfs over the unpacked layers of ${image} (${mode} mode)`, async () => {
        const expected = unclamped(await expectedTree(lab, registry, image));
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
