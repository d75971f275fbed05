/** The Snapshots service on its socket, spoken to as containerd would. */
import assert from "node:assert/strict";
import { stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { Client, credentials, Metadata, status } from "@grpc/grpc-js";
import { DaemonError, RETRYABLE, isErrorCode } from "../../../src/base/errors.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { Scope } from "../../../src/base/scope.ts";
import {
  ContainerdClient,
  Snapshotter,
  SnapshotterServer,
} from "../../../src/snapshotter/index.ts";
import { containerdService } from "../../../src/snapshotter/containerd/protos.ts";
import { GRPC_STATUS } from "../../../src/snapshotter/containerd/status.ts";
import { LABEL_SNAPSHOT_REF } from "../../../src/snapshotter/labels.ts";
import { needs } from "../../support/lab/index.ts";
import { startDaemon, temporaryFolder } from "../../support/snapshotter/daemon.ts";
import type { TestDaemon } from "../../support/snapshotter/daemon.ts";
import { FakeProvider } from "../../support/snapshotter/fake-provider.ts";

const SERVICE = containerdService("containerd.services.snapshots.v1.Snapshots");

function connect(scope: Scope, address: string, authority = "localhost"): Client {
  const client = new Client(`unix:${address}`, credentials.createInsecure(), {
    "grpc.max_receive_message_length": 16 * 1024 * 1024,
    "grpc.default_authority": authority,
  });
  scope.defer(() => {
    client.close();
  });
  return client;
}

function call(client: Client, name: string, request: object): Promise<Record<string, unknown>> {
  const method = SERVICE[name];
  assert.ok(method !== undefined);
  return new Promise((resolve, reject) => {
    const answered = (error: Error | null, answer?: object): void => {
      if (error === null) resolve((answer ?? {}) as Record<string, unknown>);
      else reject(error);
    };
    const { path, requestSerialize, responseDeserialize } = method;
    const deadline = performance.timeOrigin + performance.now() + 10_000;
    const options = { deadline };
    const metadata = new Metadata();
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadata,
      options,
      answered,
    );
  });
}

async function list(client: Client, filters: readonly string[]): Promise<unknown[][]> {
  const method = SERVICE["List"];
  assert.ok(method !== undefined);
  const stream = client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    { filters },
  );
  const blocks: unknown[][] = [];
  for await (const block of stream) blocks.push((block as { info: unknown[] }).info);
  return blocks;
}

describe("Snapshots service", () => {
  let scope: Scope;
  let daemon: TestDaemon;
  let client: Client;

  before(function () {
    needs(this, { root: true });
  });

  beforeEach(async () => {
    scope = new Scope();
    const folder = await temporaryFolder(scope, "fn-svc-");
    daemon = await startDaemon(scope, { folder });
    client = connect(scope, daemon.address);
  });

  afterEach(async () => {
    await scope[Symbol.asyncDispose]();
  });

  it("serves a snapshot's whole life in containerd's messages", async () => {
    const labels = { "containerd.io/snapshot/a": "1" };
    const prepared = await call(client, "Prepare", { key: "k", labels });
    const source = join(daemon.root, "snapshots", "1", "fs");
    assert.deepEqual(prepared, {
      mounts: [{ type: "bind", source, target: "", options: ["rw", "rbind"] }],
    });
    assert.deepEqual(await call(client, "Mounts", { key: "k" }), prepared);
    await call(client, "Commit", { name: "n", key: "k", labels });
    const { info } = (await call(client, "Stat", { key: "n" })) as {
      info: Record<string, unknown>;
    };
    assert.deepEqual([info["name"], info["parent"], info["kind"]], ["n", "", 3]);
    assert.deepEqual(info["labels"], labels);
    const created = info["created_at"] as { seconds: number; nanos: number };
    assert.ok(Math.abs(created.seconds - Number(systemClock.wallNs() / 1_000_000_000n)) < 60);
    assert.deepEqual(info["updated_at"], created);
    const update = {
      info: { name: "n", labels: { x: "y" } },
      update_mask: { paths: ["labels.x"] },
    };
    const updated = (await call(client, "Update", update)) as { info: Record<string, unknown> };
    assert.deepEqual(updated.info["labels"], { ...labels, x: "y" });
    assert.deepEqual(Object.keys(await call(client, "Usage", { key: "n" })), ["size", "inodes"]);
    await call(client, "View", { key: "v", parent: "n" });
    await assert.rejects(call(client, "Remove", { key: "n" }), {
      code: status.FAILED_PRECONDITION,
    });
    await call(client, "Remove", { key: "v" });
    await call(client, "Remove", { key: "n" });
    await call(client, "Cleanup", {});
    assert.deepEqual(await list(client, []), []);
  });

  it("answers with the codes that containerd relies on", async () => {
    await call(client, "Prepare", { key: "k" });
    const expected: readonly (readonly [string, object, status])[] = [
      ["Stat", { key: "absent" }, status.NOT_FOUND],
      ["Prepare", { key: "k" }, status.ALREADY_EXISTS],
      ["Prepare", { key: "x", parent: "k" }, status.INVALID_ARGUMENT],
      ["Prepare", { key: "" }, status.INVALID_ARGUMENT],
      ["Commit", { name: "n", key: "absent" }, status.NOT_FOUND],
    ];
    for (const [method, request, code] of expected) {
      await assert.rejects(call(client, method, request), { code });
    }
    await assert.rejects(list(client, ["name=="]), { code: status.INVALID_ARGUMENT });
  });

  it("takes any :authority that HTTP/2 can name", async () => {
    // A bare path is none (RFC 9113, 8.3.1): Node's http2 refuses it before we see the call.
    for (const authority of ["x.sock", "%2Frun%2Fx.sock", "[::]", "faasnet:1"]) {
      const other = connect(scope, daemon.address, authority);
      await assert.rejects(call(other, "Stat", { key: "k" }), { code: status.NOT_FOUND });
    }
  });

  it("has a status for every code of ours", () => {
    const codes = Object.keys(RETRYABLE).filter(isErrorCode);
    assert.deepEqual(Object.keys(GRPC_STATUS).toSorted(), codes.toSorted());
    assert.equal(new Set(Object.values(GRPC_STATUS)).size, codes.length);
  });

  it("lists in blocks of 100, while other calls are answered", async () => {
    const keys = Array.from({ length: 250 }, (_, at) => `k${at}`);
    await Promise.all(keys.map((key) => call(client, "View", { key })));
    const listing = list(client, ["kind==view"]);
    await call(client, "Stat", { key: "k7" });
    assert.deepEqual(
      (await listing).map((block) => block.length),
      [100, 100, 50],
    );
  });

  it("moves messages beyond gRPC's usual 4 MiB", async () => {
    const labels = Object.fromEntries(
      Array.from({ length: 250 }, (_, at) => [`containerd.io/snapshot/${at}`, "x".repeat(4000)]),
    );
    await Promise.all(
      ["a", "b", "c", "d", "e"].map((key) => call(client, "View", { key, labels })),
    );
    const [block] = await list(client, []);
    assert.equal(block?.length, 5);
    const [, tooMany] = await Promise.allSettled([
      Promise.resolve(),
      call(client, "View", { key: "f", labels: { ...labels, ...numbered(300) } }),
    ]);
    assert.equal(tooMany.status, "rejected");
  });

  it("tells the snapshotter when the client leaves", async () => {
    const chain = `sha256:${"a".repeat(64)}`;
    const method = SERVICE["Prepare"];
    assert.ok(method !== undefined);
    const { provider } = daemon;
    const knows = provider.knows.bind(provider);
    let abortSeen = (): void => undefined;
    const aborted = new Promise<void>((resolve) => {
      abortSeen = resolve;
    });
    const asked = new Promise<void>((resolve) => {
      provider.knows = async (...parameters: readonly unknown[]) => {
        const options = parameters[1] as { readonly signal: AbortSignal };
        options.signal.addEventListener("abort", abortSeen);
        resolve();
        return new Promise(() => undefined);
      };
    });
    const request = { key: "k", labels: { [LABEL_SNAPSHOT_REF]: chain } };
    const { path, requestSerialize, responseDeserialize } = method;
    const failed = new Promise<void>((resolve) => {
      const started = client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        () => {
          resolve();
        },
      );
      void asked.then(() => {
        started.cancel();
      });
    });
    await failed;
    await aborted;
    provider.knows = knows;
    assert.deepEqual(await list(client, []), []);
  });
});

function numbered(count: number): Record<string, string> {
  return Object.fromEntries(Array.from({ length: count }, (_, at) => [`n${at}`, "1"]));
}

describe("snapshotter's socket", () => {
  let scope: Scope;
  let folder: string;

  before(function () {
    needs(this, { root: true });
  });

  beforeEach(async () => {
    scope = new Scope();
    folder = await temporaryFolder(scope, "fn-sock-");
  });

  afterEach(async () => {
    await scope[Symbol.asyncDispose]();
  });

  const options = { clock: systemClock, log: silentLogger };

  it("takes calls before the metastore has been read, and answers them after", async () => {
    const address = join(folder, "s");
    let open = (_snapshotter: Snapshotter): void => undefined;
    const ready = new Promise<Snapshotter>((resolve) => {
      open = resolve;
    });
    scope.use(await SnapshotterServer.listen({ ...options, address, ready }));
    const client = connect(scope, address);
    const answer = call(client, "View", { key: "k" });
    const root = join(folder, "root");
    const provider = new FakeProvider();
    open(scope.use(await Snapshotter.open({ ...options, root, provider, containerd: undefined })));
    assert.ok("mounts" in (await answer));
  });

  it("answers every call with the reason when the metastore cannot be read", async () => {
    const address = join(folder, "s");
    const ready = Promise.reject(new DaemonError("data-loss", "journal is damaged at byte 7"));
    scope.use(await SnapshotterServer.listen({ ...options, address, ready }));
    await assert.rejects(call(connect(scope, address), "Stat", { key: "k" }), {
      code: status.DATA_LOSS,
      details: /byte 7/,
    });
  });

  it("replaces a dead socket, respects a live one and what is no socket", async () => {
    const ready = new Promise<Snapshotter>(() => undefined);
    const address = join(folder, "s");
    const first = await SnapshotterServer.listen({ ...options, address, ready });
    await assert.rejects(SnapshotterServer.listen({ ...options, address, ready }), {
      code: "already-exists",
    });
    await first[Symbol.asyncDispose]();
    // As a killed process leaves it: bound, and nobody listens.
    const dead = createServer();
    await new Promise<void>((resolve) => dead.listen(address, resolve));
    dead.removeAllListeners();
    await new Promise((resolve) => dead.close(resolve));
    scope.use(await SnapshotterServer.listen({ ...options, address, ready }));
    assert.equal((await stat(address)).mode & 0o777, 0o600);
    const file = join(folder, "file");
    await writeFile(file, "precious");
    await assert.rejects(SnapshotterServer.listen({ ...options, address: file, ready }), {
      code: "already-exists",
    });
    const long = join(folder, "x".repeat(120));
    await assert.rejects(SnapshotterServer.listen({ ...options, address: long, ready }), {
      code: "invalid-argument",
    });
  });
});

describe("ContainerdClient", () => {
  it("says that containerd is away, soon, and finds it when it has come", async () => {
    const scope = new Scope();
    try {
      const folder = await temporaryFolder(scope, "fn-ctd-");
      const address = join(folder, "c");
      const client = scope.use(new ContainerdClient(address, { clock: systemClock }));
      const { signal } = new AbortController();
      for (let round = 0; round < 3; round += 1) {
        await assert.rejects(client.uuid({ signal }), { code: "unavailable" });
      }
      assert.equal(client.isConnected, false);
      // Any gRPC server will do: it answers, if only that it has no such service.
      const ready = new Promise<Snapshotter>(() => undefined);
      const listening = { address, ready, clock: systemClock, log: silentLogger };
      scope.use(await SnapshotterServer.listen(listening));
      await assert.rejects(client.uuid({ signal }), { code: "unimplemented" });
      assert.equal(client.isConnected, true);
      const aborted = AbortSignal.abort();
      await assert.rejects(client.uuid({ signal: aborted }), { code: "canceled" });
    } finally {
      await scope[Symbol.asyncDispose]();
    }
  });
});
