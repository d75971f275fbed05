/** Commands that speak to the image service, against a scripted service on a real socket. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DaemonError } from "../../../src/base/errors.ts";
import { Scope } from "../../../src/base/scope.ts";
import { ControlServer } from "../../../src/control/index.ts";
import type { Handlers } from "../../../src/control/index.ts";
import { EXIT } from "../../../src/cli/exit-codes.ts";
import type { CacheReport, InspectReport, StatusReport } from "../../../src/cli/reports.ts";
import { FakeDaemonApi, runCommand } from "../../support/fake-daemon-api.ts";
import type { CommandResult, RunOptions } from "../../support/fake-daemon-api.ts";

const DIFF_ID = `sha256:${"0123456789abcdef".repeat(4)}`;

const STATUS: StatusReport = {
  version: "0.1.0",
  pid: 4711,
  uptimeSeconds: 75,
  ready: true,
  mode: "erofs",
  modeReason: "the self-test passed",
  images: [
    {
      reference: "localhost:5000/app:1",
      manifestDigest: DIFF_ID,
      chainId: DIFF_ID,
      layers: 3,
      imageBytes: 392_000_000,
      presentBytes: 43_000_000,
      mounted: true,
    },
  ],
  blocksBySource: {
    memory: { blocks: 3, bytes: 3_000_000 },
    registry: { blocks: 41, bytes: 43e6 },
  },
  waitingReads: 0,
  cache: { usedBytes: 43_000_000, quotaBytes: 1e9, layers: 3 },
};

const CACHE: CacheReport = {
  usedBytes: 5_000_000,
  quotaBytes: 1e9,
  layers: [
    {
      diffId: DIFF_ID,
      tarBytes: 10_000_000,
      decodedBytes: 5_000_000,
      blobBytes: 0,
      images: ["localhost:5000/app:1"],
    },
  ],
};

const INSPECT: InspectReport = {
  reference: "localhost:5000/app:1",
  manifestDigest: DIFF_ID,
  platform: "linux/amd64",
  layers: [
    {
      diffId: DIFF_ID,
      chainId: DIFF_ID,
      blobDigest: DIFF_ID,
      mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
      blobBytes: 4_000_000,
      tarBytes: 10_000_000,
      entries: 1234,
      mapBytes: 250_000,
      metadataBytes: 130_000,
      windowBytes: 110_000,
      blocks: 10,
      codec: "gzip",
      presentBytes: 5_000_000,
    },
  ],
};

describe("commands of a running daemon", () => {
  let scope: Scope;
  let state: string;

  beforeEach(async () => {
    scope = new Scope();
    state = await mkdtemp(join(tmpdir(), "faasnet-cli-"));
    scope.defer(async () => rm(state, { recursive: true }));
  });

  afterEach(async () => {
    await scope[Symbol.asyncDispose]();
  });

  async function serve(handlers: Handlers): Promise<void> {
    scope.use(await ControlServer.listen(join(state, "image.sock"), handlers));
  }

  async function run(argv: readonly string[], options: RunOptions = {}): Promise<CommandResult> {
    return runCommand([...argv, "--state", state], options);
  }

  it("end with exit code 4, the socket and what to do when no daemon runs", async () => {
    for (const argv of [
      ["status"],
      ["cache"],
      ["cache", "clear"],
      ["inspect", "a"],
      ["fetch", "a"],
    ]) {
      const { exitCode, stdout, stderr } = await run(argv);

      assert.equal(exitCode, EXIT.notRunning);
      assert.equal(stdout, "");
      assert.equal(
        stderr,
        `faasnet: no daemon answers at ${state}/image.sock\n` +
          "  start it with `faasnet daemon`, or name its state folder with --state\n",
      );
    }
  });

  it("status shows mode, cache, sources and images", async () => {
    await serve({ "Image.Status": async () => ({ json: JSON.stringify(STATUS) }) });

    const { exitCode, stdout } = await run(["status"]);

    assert.equal(exitCode, EXIT.ok);
    assert.equal(
      stdout,
      [
        "faasnet        0.1.0, image service 4711 up 1:15",
        "ready          yes",
        "mode           erofs (the self-test passed)",
        "cache          43.0 MB of 1.00 GB, 3 layers",
        "waiting reads  0",
        "",
        "BLOCKS FROM  BLOCKS    BYTES",
        "memory            3  3.00 MB",
        "registry         41  43.0 MB",
        "",
        "IMAGE                 MANIFEST             LAYERS    SIZE  CACHED  MOUNTED",
        "localhost:5000/app:1  sha256:0123456789ab       3  392 MB     10%  yes",
        "",
      ].join("\n"),
    );
  });

  it("status --json passes on what the daemon said, fields it does not know too", async () => {
    const newer = { ...STATUS, peers: { alive: 3 } };
    await serve({ "Image.Status": async () => ({ json: JSON.stringify(newer) }) });

    const { stdout } = await run(["status", "--json"]);

    assert.deepEqual(JSON.parse(stdout), newer);
  });

  it("say that the daemon is at fault when its answer makes no sense", async () => {
    await serve({ "Image.Status": async () => ({ json: '{"version":1}' }) });

    const { exitCode, stderr } = await run(["status"]);

    assert.equal(exitCode, EXIT.failure);
    assert.match(stderr, /^faasnet: the daemon's status: version: /);
  });

  it("cache lists layers", async () => {
    await serve({ "Image.CacheList": async () => ({ json: JSON.stringify(CACHE) }) });

    const { stdout } = await run(["cache"]);

    assert.equal(
      stdout,
      [
        "5.00 MB of 1.00 GB used (0%)",
        "",
        "LAYER (DIFF ID)      UNPACKED  DECODED  BLOB  COMPLETE  IMAGES",
        "sha256:0123456789ab   10.0 MB  5.00 MB   0 B       50%  localhost:5000/app:1",
        "",
      ].join("\n"),
    );
  });

  it("cache clear says what it dropped", async () => {
    await serve({ "Image.CacheClear": async () => ({ bytes: 5_000_000, blocks: 5 }) });

    assert.equal((await run(["cache", "clear"])).stdout, "dropped 5.00 MB in 5 blocks\n");
    assert.deepEqual(JSON.parse((await run(["cache", "clear", "--json"])).stdout), {
      bytes: 5_000_000,
      blocks: 5,
    });
  });

  it("cache clear takes options before it too", async () => {
    await serve({ "Image.CacheClear": async () => ({ bytes: 0, blocks: 0 }) });

    const { exitCode } = await runCommand(["cache", "--state", state, "clear"]);

    assert.equal(exitCode, EXIT.ok);
  });

  it("inspect shows the image and its layers, and the map's progress meanwhile", async () => {
    await serve({
      "Image.Inspect": async (request, { item }) => {
        assert.deepEqual(request, { reference: "app:1", platform: "linux/arm64" });
        const progress = { phase: "map", doneBytes: 1, totalBytes: 2, layersDone: 0, layers: 1 };
        item({ json: JSON.stringify(progress) });
        return { json: JSON.stringify(INSPECT) };
      },
    });

    const { stdout, stderr } = await run(["inspect", "--platform", "linux/arm64", "app:1"]);

    assert.equal(stderr, "mapping layers 0/1: 1 B of 2 B  50%\n");
    assert.equal(
      stdout,
      [
        "image     localhost:5000/app:1",
        `manifest  ${DIFF_ID}`,
        "platform  linux/amd64",
        "blobs     4.00 MB",
        "unpacked  10.0 MB",
        "maps      250 kB",
        "cached    5.00 MB (50%)",
        "",
        "LAYER (DIFF ID)         BLOB  UNPACKED  ENTRIES  CODEC  BLOCKS     MAP  CACHED",
        "sha256:0123456789ab  4.00 MB   10.0 MB    1,234  gzip       10  250 kB     50%",
        "",
      ].join("\n"),
    );
  });

  it("inspect ends with exit code 3 when the image is not there", async () => {
    await serve({
      "Image.Inspect": async () => {
        throw new DaemonError("not-found", "localhost:5000/nope:1: manifest unknown");
      },
    });

    const { exitCode, stderr } = await run(["inspect", "localhost:5000/nope:1"]);

    assert.equal(exitCode, EXIT.notFound);
    assert.match(stderr, /^faasnet: localhost:5000\/nope:1: manifest unknown\n/);
  });

  it("fetch --wait shows progress and ends when the image is complete", async () => {
    await serve({
      "Image.Fill": async (_request, { item }) => {
        item({ doneBytes: 1e6, totalBytes: 4e6 });
        return { doneBytes: 4e6, totalBytes: 4e6 };
      },
    });

    const { exitCode, stdout, stderr } = await run(["fetch", "--wait", "app:1"]);

    assert.equal(exitCode, EXIT.ok);
    assert.equal(stderr, "fetching: 1.00 MB of 4.00 MB  25%\n");
    assert.equal(stdout, "complete: 4.00 MB, no registry needed any more\n");
  });

  it("fetch --wait fails when the cache has no room for the image", async () => {
    await serve({ "Image.Fill": async () => ({ doneBytes: 1e6, totalBytes: 4e6 }) });

    const { exitCode, stdout, stderr } = await run(["fetch", "--wait", "app:1"]);

    assert.equal(exitCode, EXIT.failure);
    assert.equal(stdout, "");
    assert.match(stderr, /^faasnet: the cache holds only 1\.00 MB of 4\.00 MB of the image\n/);
  });

  it("fetch leaves as soon as the daemon has taken it on", async () => {
    let wasCancelled: () => void = () => undefined;
    const cancelled = new Promise<void>((resolve) => {
      wasCancelled = resolve;
    });
    await serve({
      "Image.Fill": async (_request, { item, signal }) => {
        item({ doneBytes: 0, totalBytes: 4e6 });
        await new Promise<void>((resolve) => {
          signal.addEventListener("abort", () => {
            resolve();
          });
        });
        wasCancelled();
        return {};
      },
    });

    const { exitCode, stdout } = await run(["fetch", "app:1"]);

    assert.equal(exitCode, EXIT.ok);
    assert.equal(stdout, "started: `faasnet status` shows how far it is\n");
    await cancelled;
  });

  it("fetch ends with the daemon's error", async () => {
    await serve({
      "Image.Fill": async () => {
        throw new DaemonError("unauthenticated", "registry answered 401");
      },
    });

    for (const argv of [
      ["fetch", "a"],
      ["fetch", "--wait", "a"],
    ]) {
      assert.equal((await run(argv)).exitCode, EXIT.denied);
    }
  });

  it("end with exit code 130 when interrupted", async () => {
    const controller = new AbortController();
    await serve({
      "Image.Fill": async () => {
        controller.abort();
        return new Promise(() => undefined);
      },
    });

    const { exitCode, stderr } = await run(["fetch", "--wait", "a"], {
      signal: controller.signal,
    });

    assert.equal(exitCode, EXIT.interrupted);
    assert.equal(stderr, "faasnet: interrupted\n");
  });

  it("end with exit code 1 when the daemon dies meanwhile", async () => {
    const api = new FakeDaemonApi();
    await serve({
      "Image.Status": async (_request, { connection }) => {
        await connection[Symbol.asyncDispose]();
        return {};
      },
    });

    const { exitCode, stderr } = await run(["status"], { api });

    assert.equal(exitCode, EXIT.failure);
    assert.match(stderr, /connection lost/);
  });
});
