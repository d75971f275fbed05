/** Calls over a real unix socket in a temporary folder. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connectControl, ControlServer } from "../../../src/control/index.ts";
import type { ControlConnection, Handlers } from "../../../src/control/index.ts";
import { DaemonError } from "../../../src/base/errors.ts";
import { Scope } from "../../../src/base/scope.ts";
import { encodeFrame, FRAME_BYTES_MAX } from "../../../src/control/codec.ts";
import { UNSENT_BYTES_MAX } from "../../../src/control/connection.ts";

const never = new AbortController().signal;
const CHAIN = { chainId: "sha256:00" };

describe("ControlConnection", () => {
  let scope: Scope;
  let path: string;

  beforeEach(async () => {
    scope = new Scope();
    const folder = await mkdtemp(join(tmpdir(), "faasnet-control-"));
    scope.defer(async () => rm(folder, { recursive: true }));
    path = join(folder, "s");
  });

  afterEach(async () => {
    await scope[Symbol.asyncDispose]();
  });

  async function pair(
    serverHandlers: Handlers,
    clientHandlers: Handlers = {},
  ): Promise<{ client: ControlConnection; server: ControlConnection }> {
    let onAccepted: (connection: ControlConnection) => void = () => undefined;
    const serverSide = new Promise<ControlConnection>((resolve) => {
      onAccepted = resolve;
    });
    scope.use(
      await ControlServer.listen(path, serverHandlers, (connection) => {
        onAccepted(connection);
      }),
    );
    const client = scope.use(await connectControl(path, clientHandlers, { signal: never }));
    return { client, server: await serverSide };
  }

  it("answers a call with the handler's result", async () => {
    const { client } = await pair({
      "Image.CacheClear": async () => ({ bytes: 12, blocks: 3 }),
    });

    const answer = await client.call("Image.CacheClear", {}, { signal: never });

    assert.deepEqual(answer, { bytes: 12, blocks: 3 });
  });

  it("lets both sides call each other at once on one connection", async () => {
    const { client, server } = await pair(
      {
        "Keeper.Present": async (_request, { connection }) => {
          await connection.call(
            "Fetcher.Fetch",
            { layer: "ab", start: 1, end: 2 },
            { signal: never },
          );
          return {};
        },
      },
      { "Fetcher.Fetch": async () => ({ data: Buffer.from("x") }) },
    );

    const [, answer] = await Promise.all([
      client.call("Keeper.Present", { layer: "ab" }, { signal: never }),
      server.call("Fetcher.Fetch", { layer: "cd", start: 0, end: 1 }, { signal: never }),
    ]);

    assert.deepEqual(answer, { present: [], data: Buffer.from("x") });
  });

  it("answers many calls, each with its own answer, in any order", async () => {
    const { client } = await pair({
      "Image.Inspect": async (request) => {
        const { reference } = request as { reference: string };
        await sleep(Number(reference) % 3);
        return { json: reference };
      },
    });

    const answers = await Promise.all(
      Array.from({ length: 200 }, async (_, index) =>
        client.call("Image.Inspect", { reference: `${index}` }, { signal: never }),
      ),
    );

    assert.deepEqual(
      answers,
      Array.from({ length: 200 }, (_, index) => ({ json: `${index}` })),
    );
  });

  it("delivers items in order before the result", async () => {
    const { client } = await pair({
      "Image.Fill": async (_request, context) => {
        for (const doneBytes of [1, 2]) context.item({ doneBytes, totalBytes: 3 });
        await Promise.resolve();
        return { doneBytes: 3, totalBytes: 3 };
      },
    });
    const items: unknown[] = [];

    const result = await client.call(
      "Image.Fill",
      { reference: "a" },
      { signal: never, onItem: (one) => items.push(one) },
    );

    assert.deepEqual(items, [
      { doneBytes: 1, totalBytes: 3 },
      { doneBytes: 2, totalBytes: 3 },
    ]);
    assert.deepEqual(result, { doneBytes: 3, totalBytes: 3 });
  });

  it("carries a handler's error with its code and causes", async () => {
    const { client } = await pair({
      "Image.Mount": async () => {
        throw new DaemonError("not-found", "no such chain", { cause: new Error("never seen") });
      },
    });

    await assert.rejects(client.call("Image.Mount", CHAIN, { signal: never }), {
      code: "not-found",
      message: "no such chain: never seen",
    });
  });

  it("turns an unknown error code of the other side into internal", async () => {
    const server = createServer((socket) => {
      socket.on("data", () =>
        socket.end(encodeFrame({ id: 1, kind: "ERROR", code: "weird", message: "m" })),
      );
    }).listen(path);
    scope.defer(() => {
      server.close();
    });
    const client = scope.use(await connectControl(path, {}, { signal: never }));

    await assert.rejects(client.call("Image.Mount", CHAIN, { signal: never }), {
      code: "internal",
      message: "m",
    });
  });

  for (const method of ["Image.Mount", "Image.Release"]) {
    it(`answers unimplemented for a method without a handler (${method})`, async () => {
      const { client } = await pair({});

      await assert.rejects(client.call(method, CHAIN, { signal: never }), {
        code: "unimplemented",
      });
    });
  }

  it("never takes a handler from Object's prototype", async () => {
    const { client } = await pair({});

    await assert.rejects(client.call("toString", {}, { signal: never }), {
      code: "unimplemented",
    });
  });

  it("tells the other side when the caller leaves, and ignores its late answer", async () => {
    let isCancelled: () => void = () => undefined;
    const cancelled = new Promise<void>((resolve) => {
      isCancelled = resolve;
    });
    const { client } = await pair({
      "Image.Mount": async (_request, { signal }) => {
        await new Promise<void>((resolve) => {
          signal.addEventListener("abort", () => {
            resolve();
          });
        });
        isCancelled();
        return { path: "/late", mode: "" };
      },
      "Image.Release": async () => ({}),
    });
    const controller = new AbortController();

    const call = client.call("Image.Mount", CHAIN, { signal: controller.signal });
    controller.abort();

    await assert.rejects(call, { code: "canceled" });
    await cancelled;
    assert.deepEqual(await client.call("Image.Release", CHAIN, { signal: never }), {});
  });

  it("sends nothing for a caller that is already aborted", async () => {
    let calls = 0;
    const { client } = await pair({
      "Image.Release": async () => {
        calls += 1;
        return {};
      },
    });

    await assert.rejects(client.call("Image.Release", CHAIN, { signal: AbortSignal.abort() }), {
      code: "canceled",
    });
    await client.call("Image.Release", CHAIN, { signal: never });

    assert.equal(calls, 1);
  });

  it("fails calls with unavailable and aborts handlers when the connection is lost", async () => {
    let handlerSignal: AbortSignal | undefined;
    let isStarted: () => void = () => undefined;
    const started = new Promise<void>((resolve) => {
      isStarted = resolve;
    });
    const { client, server } = await pair({
      "Image.Mount": async (_request, { signal }) => {
        handlerSignal = signal;
        isStarted();
        return new Promise(() => undefined);
      },
    });
    const call = client.call("Image.Mount", CHAIN, { signal: never });
    const lost = assert.rejects(call, { code: "unavailable" });
    await started;

    await client[Symbol.asyncDispose]();

    await lost;
    await server.closed;
    assert.equal(handlerSignal?.aborted, true);
    await assert.rejects(client.call("Image.Mount", CHAIN, { signal: never }), {
      code: "unavailable",
    });
    assert.equal(client.isClosed, true);
  });

  it("delivers what was sent before closing", async () => {
    let received: () => void = () => undefined;
    const arrived = new Promise<void>((resolve) => {
      received = resolve;
    });
    const { client } = await pair({
      "Keeper.Present": async () => {
        received();
        return {};
      },
    });

    const ranges = Array.from({ length: 20_000 }, (_, index) => ({
      start: index * 2,
      end: index * 2 + 1,
    }));
    const call = client.call("Keeper.Present", { layer: "ab", ranges }, { signal: never });
    call.catch(() => undefined);
    await client[Symbol.asyncDispose]();

    await arrived;
  });

  it("closes within its limit though the other side does not read", async () => {
    const server = createServer((socket) => socket.pause()).listen(path);
    scope.defer(() => {
      server.close();
    });
    const client = await connectControl(path, {}, { signal: never });
    const call = client.call("Image.Mount", { chainId: "x".repeat(8 << 20) }, { signal: never });
    call.catch(() => undefined);

    await client[Symbol.asyncDispose]();

    await assert.rejects(call, { code: "unavailable" });
  });

  it("gives up a peer that stops reading instead of queueing without limit", async () => {
    const server = createServer((socket) => socket.pause()).listen(path);
    scope.defer(() => {
      server.close();
    });
    const client = await connectControl(path, {}, { signal: never });
    const request = { chainId: "x".repeat(20 << 20) };
    const calls: Promise<unknown>[] = [];
    for (let sent = 0; sent <= UNSENT_BYTES_MAX; sent += 20 << 20) {
      calls.push(client.call("Image.Mount", request, { signal: never }));
    }

    for (const result of await Promise.allSettled(calls)) assert.equal(result.status, "rejected");
    await client.closed;
  });

  it("answers resource-exhausted instead of a frame over the limit, and stays usable", async () => {
    const { client } = await pair({
      "Image.Inspect": async () => ({ json: "x".repeat(FRAME_BYTES_MAX) }),
      "Image.Release": async () => ({}),
    });

    await assert.rejects(client.call("Image.Inspect", {}, { signal: never }), {
      code: "resource-exhausted",
    });
    await assert.rejects(
      client.call("Image.Mount", { chainId: "x".repeat(FRAME_BYTES_MAX) }, { signal: never }),
      { code: "resource-exhausted" },
    );
    assert.deepEqual(await client.call("Image.Release", CHAIN, { signal: never }), {});
  });

  it("drops a connection that sends garbage, and serves the others", async () => {
    const { client } = await pair({ "Image.Release": async () => ({}) });
    const bad = connect(path);
    const closed = new Promise((resolve) => bad.once("close", resolve));

    bad.write(Buffer.from("ffffffff00", "hex"));
    bad.on("error", () => undefined);

    await closed;
    assert.deepEqual(await client.call("Image.Release", CHAIN, { signal: never }), {});
  });

  it("drops a connection that uses the id of a call under way again", async () => {
    await pair({ "Image.Release": async () => new Promise(() => undefined) });
    const bad = connect(path);
    const closed = new Promise((resolve) => bad.once("close", resolve));

    const request = encodeFrame({ id: 5, kind: "REQUEST", method: "Image.Release" });
    bad.write(Buffer.concat([request, request]));
    bad.on("error", () => undefined);

    await closed;
  });

  it("ends the call as internal when an item's receiver throws, and cancels the work", async () => {
    let handlerSignal: AbortSignal | undefined;
    const { client } = await pair({
      "Image.Fill": async (_request, context) => {
        const { signal } = context;
        handlerSignal = signal;
        context.item({ doneBytes: 1 });
        return new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => {
            reject(new DaemonError("canceled", "left"));
          });
        });
      },
      "Image.Release": async () => ({}),
    });

    const call = client.call(
      "Image.Fill",
      {},
      {
        signal: never,
        onItem: () => {
          throw new RangeError("display broke");
        },
      },
    );

    await assert.rejects(call, { code: "internal" });
    await client.call("Image.Release", CHAIN, { signal: never });
    assert.equal(handlerSignal?.aborted, true);
  });
});

describe("ControlServer", () => {
  let scope: Scope;
  let folder: string;

  beforeEach(async () => {
    scope = new Scope();
    folder = await mkdtemp(join(tmpdir(), "faasnet-control-"));
    scope.defer(async () => rm(folder, { recursive: true }));
  });

  afterEach(async () => {
    await scope[Symbol.asyncDispose]();
  });

  /** What a killed process leaves: a socket file that nobody listens on. */
  async function leaveStaleSocket(path: string): Promise<void> {
    const die = 'process.kill(process.pid, "SIGKILL")';
    const code = `require("net").createServer().listen(${JSON.stringify(path)}, () => ${die})`;
    spawnSync(process.execPath, ["-e", code]);
    assert.ok((await stat(path)).isSocket());
  }

  it("listens with mode 0600 and removes its socket when disposed", async () => {
    const path = join(folder, "s");
    const server = await ControlServer.listen(path, {});
    assert.equal((await stat(path)).mode & 0o777, 0o600);

    await server[Symbol.asyncDispose]();

    assert.deepEqual(await readdir(folder), []);
  });

  it("closes its connections when disposed", async () => {
    const path = join(folder, "s");
    const server = await ControlServer.listen(path, {});
    const client = await connectControl(path, {}, { signal: never });

    await server[Symbol.asyncDispose]();

    await client.closed;
  });

  it("replaces the socket of a dead process", async () => {
    const path = join(folder, "s");
    await leaveStaleSocket(path);

    scope.use(await ControlServer.listen(path, {}));

    scope.use(await connectControl(path, {}, { signal: never }));
  });

  it("refuses with already-exists while another process listens", async () => {
    const path = join(folder, "s");
    scope.use(await ControlServer.listen(path, {}));

    await assert.rejects(ControlServer.listen(path, {}), { code: "already-exists" });

    scope.use(await connectControl(path, {}, { signal: never }));
  });

  it("does not remove a file that is not a socket", async () => {
    const path = join(folder, "s");
    await writeFile(path, "precious");

    await assert.rejects(ControlServer.listen(path, {}), { code: "already-exists" });

    assert.equal((await stat(path)).size, 8);
  });

  it("refuses a path that the kernel would cut, naming the limit", async () => {
    const path = join(folder, "x".repeat(120));

    await assert.rejects(ControlServer.listen(path, {}), {
      code: "invalid-argument",
      message: /longer than 107 bytes/,
    });
  });

  it("says unavailable when the folder is missing", async () => {
    await assert.rejects(ControlServer.listen(join(folder, "no/s"), {}), { code: "unavailable" });
  });
});

describe("connectControl", () => {
  it("says unavailable when nobody listens", async () => {
    await assert.rejects(connectControl("/nonexistent/s", {}, { signal: never }), {
      code: "unavailable",
    });
  });

  it("does not connect for a caller that is already aborted", async () => {
    await assert.rejects(connectControl("/nonexistent/s", {}, { signal: AbortSignal.abort() }), {
      code: "canceled",
    });
  });
});
