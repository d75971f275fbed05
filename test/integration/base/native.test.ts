/** System calls by FFI: their effects, their errors, and the event loop that goes on meanwhile. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, open, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { mountAt, readMountInfo } from "../../../src/base/mountinfo.ts";
import {
  attachLoop,
  mount,
  MS_RDONLY,
  mountReadOnly,
  nativeErrno,
  punchHole,
  unmount,
} from "../../../src/base/native.ts";

describe("native", () => {
  let folder: string;

  before(function () {
    if (process.getuid?.() !== 0) {
      console.warn("skipped: root is needed to mount");
      this.skip();
    }
  });

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "faasnet-n-"));
  });

  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  it("mounts and unmounts, busy or lazily", async () => {
    const target = join(folder, "m");
    await mkdir(target);
    await mount({ fsType: "tmpfs", source: "none", target, flags: MS_RDONLY, data: "size=4096" });
    assert.equal(mountAt(await readMountInfo(), target)?.fsType, "tmpfs");
    const holder = await open(target, "r");
    await assert.rejects(unmount(target, { detach: false }), (error) => {
      return nativeErrno(error) === "EBUSY" && /umount2 .*EBUSY/.test(String(error));
    });
    await unmount(target, { detach: true });
    assert.equal(mountAt(await readMountInfo(), target), undefined);
    await holder.close();
  });

  it("mounts by the newer calls with the kernel's own complaint in the error", async () => {
    const target = join(folder, "m");
    await mkdir(target);
    const call = { fsType: "tmpfs", source: "none", target };
    await mountReadOnly({ ...call, parameters: [["size", "8192"]] });
    assert.match(mountAt(await readMountInfo(), target)?.superOptions ?? "", /^ro,size=8k/);
    await unmount(target, { detach: false });
    await assert.rejects(mountReadOnly({ ...call, parameters: [["sizzle", "1"]] }), (error) => {
      return (
        nativeErrno(error) === "EINVAL" && String(error).includes("Unknown parameter 'sizzle'")
      );
    });
    await assert.rejects(mountReadOnly({ ...call, fsType: "none-such", parameters: [] }), {
      code: "unimplemented",
    });
  });

  it("names system call, path and errno", async () => {
    await assert.rejects(unmount(join(folder, "none"), { detach: false }), {
      code: "not-found",
      details: { syscall: "umount2", path: join(folder, "none"), errno: "ENOENT" },
    });
    const target = folder;
    const data = "x".repeat(5000);
    await assert.rejects(
      mount({ fsType: "tmpfs", source: "none", target, flags: 0, data }),
      /longer than 4095 bytes/,
    );
  });

  it("punches a hole that gives space back and reads as zeros", async () => {
    const path = join(folder, "file");
    await writeFile(path, Buffer.alloc(1 << 20, 1));
    const file = await open(path, "r+");
    const before = (await stat(path)).blocks;
    await punchHole(file.fd, 4096, 1 << 19);
    const after = await stat(path);
    assert.equal(after.size, 1 << 20);
    assert.ok(after.blocks <= before - 1024);
    const { buffer } = await file.read(Buffer.alloc(8192), 0, 8192, 0);
    assert.ok(buffer.subarray(0, 4096).every((byte) => byte === 1));
    assert.ok(buffer.subarray(4096).every((byte) => byte === 0));
    await file.close();
    await assert.rejects(punchHole(file.fd, 0, 1), (error) => nativeErrno(error) === "EBADF");
  });

  it("attaches loop devices side by side that go when they are closed", async () => {
    const path = join(folder, "disk");
    await writeFile(path, Buffer.alloc(1 << 20, 7));
    const devices = await Promise.all(
      Array.from({ length: 5 }, () => attachLoop(path, { isDirect: false })),
    );
    assert.equal(new Set(devices.map((device) => device.path)).size, 5);
    for (const device of devices) {
      const file = await open(device.path, "r");
      const { buffer } = await file.read(Buffer.alloc(512), 0, 512, 512);
      assert.equal(buffer[0], 7);
      await file.close();
      await device[Symbol.asyncDispose]();
    }
    const missing = attachLoop(join(folder, "none"), { isDirect: false });
    await assert.rejects(missing, { code: "not-found" });
  });

  it("attaches a loop device past the file's page cache", async () => {
    const path = join(folder, "disk");
    await writeFile(path, Buffer.alloc(1 << 20, 7));
    for (const isDirect of [false, true]) {
      await using device = await attachLoop(path, { isDirect });
      const flag = join("/sys/block", basename(device.path), "loop", "dio");
      assert.equal((await readFile(flag, "utf8")).trim(), isDirect ? "1" : "0");
    }
  });

  it("keeps the event loop free", async () => {
    const target = join(folder, "m");
    await mkdir(target);
    let turns = 0;
    const counter = setInterval(() => (turns += 1), 1);
    for (let count = 0; count < 30; count += 1) {
      await mount({ fsType: "tmpfs", source: "none", target, flags: 0, data: "" });
      await unmount(target, { detach: false });
    }
    clearInterval(counter);
    assert.ok(turns > 0);
  });
});
