/** A FUSE session that cannot be made leaves nothing mounted. (Served mounts: ../keeper.) */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLogger } from "../../../src/base/log.ts";
import { mountAt, readMountInfo } from "../../../src/base/mountinfo.ts";
import { mount, unmount } from "../../../src/base/native.ts";
import { ENOENT, FuseSession } from "../../../src/fuse/index.ts";
import type { FuseFileSystem } from "../../../src/fuse/index.ts";
import { needsFuse, never } from "../../support/fuse/keeper-fixture.ts";

/** Never touched by this process, which serves it. */
const EMPTY: FuseFileSystem = {
  rootInode: 1,
  lookup: () => ENOENT,
  getattr: () => ENOENT,
  readdir: () => [],
  open: () => ENOENT,
};
const options = { allowSpecial: false, log: silentLogger, signal: never };

describe("FuseSession", () => {
  let folder: string;

  before(async function () {
    await needsFuse(this);
  });

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "faasnet-f-"));
  });

  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  it("mounts in a folder that it makes, sets read-ahead and unmounts", async () => {
    const mountpoint = join(folder, "a b$(id)", "m");
    const session = await FuseSession.mount(mountpoint, EMPTY, { ...options, readAheadKiB: 2048 });
    const mounted = mountAt(await readMountInfo(), mountpoint);
    assert.equal(mounted?.fsType, "fuse.faasnet");
    assert.match(mounted.superOptions, /default_permissions,allow_other/);
    const bdi = `/sys/class/bdi/${mounted.device}/read_ahead_kb`;
    assert.match(await readFile(bdi, "utf8"), /2048|128/); // INIT may come after it, until first use
    await session.unmount({ detach: false });
    assert.equal(mountAt(await readMountInfo(), mountpoint), undefined);
    await session[Symbol.asyncDispose]();
  });

  it("refuses a mountpoint of something else and leaves that alone", async () => {
    const target = join(folder, "m");
    await mkdir(target);
    await mount({ fsType: "tmpfs", source: "none", target, flags: 0, data: "" });
    await assert.rejects(FuseSession.mount(target, EMPTY, options), /mountpoint of tmpfs/);
    assert.equal(mountAt(await readMountInfo(), target)?.fsType, "tmpfs");
    await unmount(target, { detach: false });
  });

  it("leaves no dead mount behind when the kernel or libfuse refuses an option", async () => {
    const mountpoint = join(folder, "m");
    const mounting = FuseSession.mount(mountpoint, EMPTY, {
      ...options,
      context: "no-such-context",
    });
    await assert.rejects(mounting, /cannot mount FUSE/);
    assert.equal(mountAt(await readMountInfo(), mountpoint), undefined);
  });

  it("serves many mounts from one process and ends when they do", async () => {
    const sessions: FuseSession[] = [];
    for (let index = 0; index < 5; index += 1) {
      sessions.push(await FuseSession.mount(join(folder, String(index)), EMPTY, options));
    }
    for (const session of sessions) await session.unmount({ detach: true });
    const mounts = await readMountInfo();
    assert.ok(!mounts.some((one) => one.mountpoint.startsWith(folder)));
  });
});
