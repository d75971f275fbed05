/** The start-up self-test on this machine's kernel. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { readMountInfo } from "../../../src/base/mountinfo.ts";
import { mount, unmount } from "../../../src/base/native.ts";
import { selfTest } from "../../../src/rootfs/index.ts";
import type { MountMode, SelfTestVerdict } from "../../../src/rootfs/index.ts";
import { needsFuse, never } from "../../support/fuse/keeper-fixture.ts";

describe("self-test", () => {
  let folder: string;

  before(async function () {
    await needsFuse(this);
  });

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "faasnet-t-"));
  });

  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  async function test(scratchDir: string, forced?: MountMode): Promise<SelfTestVerdict> {
    const stateDir = join(folder, "state");
    await mkdir(stateDir, { recursive: true });
    const options = { clock: systemClock, log: silentLogger, signal: never };
    return selfTest({ stateDir, scratchDir, forced, ...options });
  }

  it("picks erofs mode here, remembers it and leaves nothing behind", async () => {
    const startMs = systemClock.nowMs();
    const verdict = await test(folder);
    const tookMs = systemClock.nowMs() - startMs;
    assert.equal(verdict.mode, "erofs", verdict.reason);
    assert.ok(tookMs < 3000, `${tookMs} ms`);
    const againMs = systemClock.nowMs();
    assert.deepEqual(await test(folder), verdict);
    assert.ok(systemClock.nowMs() - againMs < 50);
    assert.deepEqual(await readdir(folder), ["state"]);
    assert.deepEqual(await readdir(join(folder, "state")), ["self-test.json"]);
    const mounts = await readMountInfo();
    assert.ok(!mounts.some((one) => one.mountpoint.startsWith(folder)));
  });

  it("tries a mode that is forced, and says so", async () => {
    const verdict = await test(folder, "loop");
    assert.deepEqual(verdict, {
      mode: "loop",
      reason: "forced by the configuration; its self-test passed",
    });
    assert.equal((await test(folder)).mode, "erofs");
    assert.equal((await test(folder, "fuse")).mode, "fuse");
  });

  it("falls back to loop mode, saying why, where metadata cannot be mounted from a file", async () => {
    const scratch = join(folder, "tmpfs");
    await mkdir(scratch);
    await mount({ fsType: "tmpfs", source: "none", target: scratch, flags: 0, data: "" });
    try {
      const verdict = await test(scratch);
      assert.equal(verdict.mode, "loop");
      assert.match(verdict.reason, /erofs mode: .*ENOTBLK/);
      await assert.rejects(test(scratch, "erofs"), (error: Error) => {
        assert.match(error.message, /mode "auto" would avoid it: .*erofs mode: .*ENOTBLK/);
        return true;
      });
    } finally {
      await unmount(scratch, { detach: false });
    }
  });
});
