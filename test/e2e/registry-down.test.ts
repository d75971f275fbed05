/** The registry is away: before the pull, during a read, and when nothing needs it any more. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import {
  Lab,
  Registry,
  SNAPSHOTTER,
  dropCaches,
  imageFacts,
  mountView,
  needs,
  programPath,
  run,
  startStack,
  type RunResult,
  type Stack,
} from "../support/lab/index.ts";

const OPTIONS = { snapshotter: SNAPSHOTTER };
const LIMIT_SECONDS = 4;
const needed = { root: true, fuse: true, program: true, containerd: ["2"] } as const;

describe("A registry that is down", function () {
  this.timeout(120_000);
  let lab: Lab;
  let stack: Stack;

  beforeEach(async function () {
    needs(this, { ...needed, images: ["debian", "busybox"] });
    lab = await Lab.create();
    stack = await startStack(lab, { readLimitSeconds: LIMIT_SECONDS });
  });

  afterEach(async () => {
    await lab[Symbol.asyncDispose]();
  });

  /** A file of the image that nothing has touched, from a mount outside of containers. */
  async function missingFile(): Promise<string> {
    const { containerd, daemon, registry } = stack;
    await containerd.pull(registry.reference("debian"), OPTIONS);
    await daemon.cacheClear();
    const top = (await imageFacts(registry, "debian")).chainIds.at(-1) ?? "";
    const folder = await mountView(lab, containerd, top, SNAPSHOTTER);
    const found = await run("find", [`${folder}/usr/lib`, "-name", "*.so.*", "-size", "+1M"]);
    return found.stdout.split("\n")[0] ?? "";
  }

  const read = (file: string): Promise<RunResult> => run("cat", [file], { allowFailure: true });

  it("fails a pull with a message that names it", async () => {
    const { containerd, daemon, registry } = stack;
    await registry.stop();

    const pulled = await containerd.pull(registry.reference("busybox"), {
      ...OPTIONS,
      allowFailure: true,
    });

    assert.notEqual(pulled.status, 0);
    assert.match(pulled.stderr, /connection refused/);
    assert.equal((await daemon.status()).ready, true);
  });

  it("fails faasnet mount with a message that names it", async () => {
    const own = await Registry.start(lab);
    const folder = await lab.makeFolder("at");
    await own.stop();

    const place = ["--root", lab.path("m", "root"), "--state", lab.path("m", "state")];
    const mounted = await run(programPath, ["mount", ...place, own.reference("busybox"), folder], {
      allowFailure: true,
      env: lab.env,
    });

    assert.notEqual(mounted.status, 0);
    assert.ok(mounted.stderr.includes(own.address), mounted.stderr);
  });

  it("makes a read wait, and fail with EIO after the limit", async () => {
    const file = await missingFile();
    await stack.registry.stop();

    const failed = await read(file);
    await stack.registry.start();
    const again = await read(file);

    assert.match(failed.stderr, /Input\/output error/);
    assert.ok(failed.seconds >= LIMIT_SECONDS - 0.5, `after ${failed.seconds} s`);
    assert.ok(failed.seconds <= 4 * LIMIT_SECONDS, `after ${failed.seconds} s`);
    assert.equal(again.status, 0, again.stderr);
  });

  it("makes a read wait, and go on when it is back in time", async () => {
    const file = await missingFile();
    await stack.registry.stop();

    const waiting = read(file);
    await sleep(1500);
    await stack.registry.start();

    const { status, stderr } = await waiting;
    assert.equal(status, 0, stderr);
  });

  it("makes no difference when everything is cached, also after a restart", async () => {
    const { containerd, daemon, registry } = stack;
    const reference = registry.reference("debian");
    await containerd.pull(reference, OPTIONS);
    await daemon.cacheClear();
    await daemon.cli(["fetch", reference, "--wait"]);
    await registry.stop();
    await dropCaches();

    const all = await containerd.runContainer(
      reference,
      ["/bin/sh", "-c", "find / -xdev -type f -print0 | xargs -0 cat | wc -c"],
      OPTIONS,
    );
    assert.ok(Number(all.stdout) > 120_000_000, all.stdout);

    await containerd.stop();
    await daemon.stop();
    await daemon.restart();
    await containerd.start();
    const perl = ["/usr/bin/perl", "-e", "print 6 * 7"];
    assert.equal((await containerd.runContainer(reference, perl, OPTIONS)).stdout, "42");
  });
});
