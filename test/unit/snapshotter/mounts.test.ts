/** The mounts that clients make of snapshots. */
import assert from "node:assert/strict";
import {
  checkMountPath,
  composeMounts,
  mappedRootId,
  mappedRootOwner,
} from "../../../src/snapshotter/mounts.ts";
import type { MountInput, OverlayFeatures } from "../../../src/snapshotter/mounts.ts";
import { isInitialUserNamespace } from "../../../src/snapshotter/overlay-features.ts";
import { LABEL_GID_MAPPING, LABEL_UID_MAPPING } from "../../../src/snapshotter/labels.ts";

const PLAIN: OverlayFeatures = { indexOff: false, userXattr: false, remapIds: false };

function mount(input: Partial<MountInput>, features: Partial<OverlayFeatures> = {}): object {
  const whole: MountInput = {
    kind: "active",
    upper: "/s/1/fs",
    work: "/s/1/work",
    lowers: [],
    labels: new Map(),
    ...input,
  };
  const [only, ...others] = composeMounts(whole, { ...PLAIN, ...features });
  assert.ok(only !== undefined && others.length === 0);
  return only;
}

describe("composeMounts", () => {
  it("binds the snapshot's own folder where there is no parent", () => {
    const bind = { type: "bind", source: "/s/1/fs", target: "" };
    assert.deepEqual(mount({}), { ...bind, options: ["rw", "rbind"] });
    assert.deepEqual(mount({ kind: "view" }), { ...bind, options: ["ro", "rbind"] });
  });

  it("binds the only parent of a view, read-only", () => {
    assert.deepEqual(mount({ kind: "view", lowers: ["/c/0"] }), {
      type: "bind",
      source: "/c/0",
      target: "",
      options: ["ro", "rbind"],
    });
  });

  it("overlays parents in order, nearest first", () => {
    const overlay = { type: "overlay", source: "overlay", target: "" };
    const both = ["/s/2/fs", "/c/0"];
    assert.deepEqual(mount({ lowers: both }), {
      ...overlay,
      options: ["workdir=/s/1/work", "upperdir=/s/1/fs", "lowerdir=/s/2/fs:/c/0"],
    });
    assert.deepEqual(mount({ kind: "view", lowers: both }), {
      ...overlay,
      options: ["lowerdir=/s/2/fs:/c/0"],
    });
  });

  it("adds what the kernel needs, on overlays only", () => {
    const features = { indexOff: true, userXattr: true };
    const lowers = ["/c/0"];
    assert.deepEqual(
      mount({ lowers }, features),
      Object.assign(mount({ lowers }), {
        options: [
          "workdir=/s/1/work",
          "upperdir=/s/1/fs",
          "lowerdir=/c/0",
          "userxattr",
          "index=off",
        ],
      }),
    );
    assert.deepEqual(mount({}, features), mount({}));
  });

  it("passes ID maps on only when they were declared", () => {
    const labels = new Map([
      [LABEL_UID_MAPPING, "0:100000:65536"],
      [LABEL_GID_MAPPING, "0:200000:65536"],
    ]);
    assert.deepEqual(mount({ labels, lowers: ["/c"] }), mount({ lowers: ["/c"] }));
    const mapped = mount({ labels, lowers: ["/c"] }, { remapIds: true });
    assert.ok("options" in mapped && Array.isArray(mapped.options));
    assert.deepEqual(mapped.options.slice(0, 2), [
      "uidmap=0:100000:65536",
      "gidmap=0:200000:65536",
    ]);
    assert.deepEqual(mappedRootOwner(labels), { uid: 100_000, gid: 200_000 });
    assert.equal(mappedRootOwner(new Map()), undefined);
  });

  it("takes 128 layers as they are, and refuses more than overlayfs does", () => {
    const lowers = Array.from({ length: 128 }, (_, position) => `/s/${position}/fs`);
    const many = mount({ lowers });
    assert.ok("options" in many && Array.isArray(many.options));
    assert.ok(many.options.includes(`lowerdir=${lowers.join(":")}`));
    const tooMany = Array.from({ length: 501 }, () => "/x");
    assert.throws(() => mount({ lowers: tooMany }), { code: "failed-precondition" });
  });
});

describe("checkMountPath", () => {
  for (const path of ["relative", "/a:b", "/a,b", "/a\\b", '/a"b', "", "/a\0b"]) {
    it(`refuses ${JSON.stringify(path)}`, () => {
      assert.throws(() => {
        checkMountPath(path);
      });
    });
  }

  it("takes an ordinary path", () => {
    checkMountPath("/var/lib/faasnet/snapshots/17/fs");
  });
});

describe("mappedRootId", () => {
  it("finds root in any entry", () => {
    assert.equal(mappedRootId("0:5:1"), 5);
    assert.equal(mappedRootId("1:7:9,0:4294967295:1"), 4_294_967_295);
  });

  for (const mapping of ["", "1:2:3", "0:1", "0:x:1", "0:1:0", "0:4294967296:1", "-0:1:1"]) {
    it(`refuses ${JSON.stringify(mapping)}`, () => {
      assert.throws(() => mappedRootId(mapping), { code: "invalid-argument" });
    });
  }
});

describe("isInitialUserNamespace", () => {
  it("knows the map of the initial namespace", () => {
    assert.ok(isInitialUserNamespace("         0          0 4294967295\n"));
    assert.ok(!isInitialUserNamespace("         0       1000          1\n"));
  });
});
