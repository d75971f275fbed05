/** The kernel's mount table: optional fields, escapes, stacked mounts. */
import assert from "node:assert/strict";
import { mountAt, parseMountInfo, readMountInfo } from "../../../src/base/mountinfo.ts";

const TABLE = [
  "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard",
  "40 22 0:45 / /run/a\\040b\\134c ro,nosuid - fuse.faasnet faasnet ro,user_id=0",
  "41 22 0:46 / /m rw master:3 propagate_from:2 - tmpfs none rw",
  "42 41 0:47 / /m ro - erofs /root/with\\040space.erofs ro",
  "",
].join("\n");

describe("mountinfo", () => {
  it("reads lines with and without optional fields", () => {
    const mounts = parseMountInfo(TABLE);
    assert.equal(mounts.length, 4);
    assert.deepEqual(mounts[2], {
      mountId: 41,
      parentId: 22,
      device: "0:46",
      mountpoint: "/m",
      fsType: "tmpfs",
      source: "none",
      superOptions: "rw",
    });
  });

  it("undoes the octal escapes", () => {
    const mounts = parseMountInfo(TABLE);
    assert.equal(mounts[1]?.mountpoint, "/run/a b\\c");
    assert.equal(mounts[3]?.source, "/root/with space.erofs");
  });

  it("finds the topmost of stacked mounts", () => {
    const mounts = parseMountInfo(TABLE);
    assert.equal(mountAt(mounts, "/m")?.fsType, "erofs");
    assert.equal(mountAt(mounts, "/other"), undefined);
  });

  it("skips lines that it does not understand", () => {
    assert.deepEqual(parseMountInfo("nonsense\n1 2 3 / / rw -\n"), []);
  });

  it("reads this process' own table", async () => {
    assert.ok(mountAt(await readMountInfo(), "/") !== undefined);
  });
});
