/** Which mounts are used, alive, or dead, judged from the mount table alone. */
import assert from "node:assert/strict";
import { parseMountInfo } from "../../../src/base/mountinfo.ts";
import type { MountInfo } from "../../../src/base/mountinfo.ts";
import { parseMountState } from "../../../src/rootfs/mount-state.ts";
import type { MountedChain } from "../../../src/rootfs/mount-state.ts";
import { chainHealth, isOverlayLower, overlayLowers } from "../../../src/rootfs/mount-table.ts";

function mounts(...lines: readonly string[]): MountInfo[] {
  return parseMountInfo(lines.map((line, index) => `${index + 9} 1 ${line}`).join("\n"));
}

const overlay = (options: string): string => `0:50 / /m rw - overlay overlay ${options}`;

describe("overlayLowers", () => {
  it("takes every form of lower folder that overlayfs shows", () => {
    const lowers = overlayLowers(
      mounts(
        overlay("rw,lowerdir=/a:/b\\:c,upperdir=/u,workdir=/w"),
        overlay("ro,lowerdir+=/new,datadir+=/data"),
        overlay("rw,lowerdir=/comma\\\\,x"),
        "0:51 / /t rw - tmpfs none rw,lowerdir=/not",
      ),
    );
    assert.deepEqual([...lowers].slice(0, 4), ["/a", "/b:c", "/new", "/data"]);
    assert.ok(!lowers.has("/not") && !lowers.has("/u"));
  });

  it("takes a relative lower folder for ours if it may be", () => {
    const lowers = overlayLowers(mounts(overlay("rw,lowerdir=12/fs:7")));
    assert.ok(isOverlayLower(lowers, "/run/faasnet/c/7"));
    assert.ok(!isOverlayLower(lowers, "/run/faasnet/c/17"));
    assert.ok(!isOverlayLower(lowers, "/run/faasnet/c/12"));
  });
});

describe("chainHealth", () => {
  const chain: MountedChain = {
    chainId: "c",
    path: "/s/c/0",
    mode: "erofs",
    metadataPath: "/root/c.erofs",
    device: "0:60",
    layers: [{ layerId: "l", device: "0:40" }],
  };
  const fuse = "0:40 / /s/l/0 ro - fuse.faasnet faasnet ro";
  const erofs = "0:60 / /s/c/0 ro - erofs /root/c.erofs ro";
  const served = new Map([["l", "/s/l/0"]]);
  const none = new Map<string, string>();

  it("is alive when mount, data devices and keeper are those of the beginning", () => {
    assert.equal(chainHealth(chain, mounts(fuse, erofs), served, none), "alive");
  });

  it("is absent when nothing is mounted there", () => {
    assert.equal(chainHealth(chain, mounts(fuse), served, none), "absent");
  });

  it("is dead when the keeper does not serve a layer, or serves it anew", () => {
    assert.equal(chainHealth(chain, mounts(fuse, erofs), none, none), "dead");
    const again = "0:41 / /s/l/0 ro - fuse.faasnet faasnet ro";
    assert.equal(chainHealth(chain, mounts(fuse, erofs, again), served, none), "dead");
    assert.equal(chainHealth(chain, mounts(erofs), served, none), "dead");
  });

  it("is dead when something else lies on its path", () => {
    const other = "0:61 / /s/c/0 ro - erofs /root/d.erofs ro";
    assert.equal(chainHealth(chain, mounts(fuse, erofs, other), served, none), "dead");
  });

  it("asks the keeper for trees in fuse mode", () => {
    const tree: MountedChain = { ...chain, mode: "fuse", layers: [{ layerId: "l", device: "" }] };
    const mounted = mounts("0:60 / /s/c/0 ro - fuse.faasnet faasnet ro");
    assert.equal(chainHealth(tree, mounted, none, new Map([["c", "/s/c/0"]])), "alive");
    assert.equal(chainHealth(tree, mounted, none, none), "dead");
  });
});

describe("parseMountState", () => {
  const chain = { chainId: "c", path: "/p", mode: "loop", metadataPath: "/m", device: "0:1" };
  const text = (value: object): string => JSON.stringify({ version: 1, layers: {}, ...value });

  it("reads what was written", () => {
    const layers = [{ layerId: "l", device: "0:2" }];
    const state = parseMountState(text({ layers: { l: 3 }, chains: [{ ...chain, layers }] }));
    assert.deepEqual(state, { layers: new Map([["l", 3]]), chains: [{ ...chain, layers }] });
  });

  for (const [what, bad] of Object.entries({
    "text that is not JSON": "{",
    "another version": text({ version: 2, chains: [] }),
    "no object": "[]",
    null: "null",
    "chains that are none": text({ chains: [1, null, {}, { ...chain, layers: [{}] }] }),
    "an unknown mode": text({ chains: [{ ...chain, mode: "x", layers: [] }] }),
    "numbers that are none": text({ layers: { l: -1, m: "2" }, chains: [] }),
  })) {
    it(`takes ${what} for nothing`, () => {
      assert.deepEqual(parseMountState(bad), { layers: new Map(), chains: [] });
    });
  }
});
