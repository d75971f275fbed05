/** The keeper's client against a keeper that is only a socket: reconnects, drops, order. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import { DaemonError } from "../../../src/base/errors.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { RangeSet } from "../../../src/base/range-set.ts";
import { ControlServer } from "../../../src/control/index.ts";
import type { ControlConnection, Handlers } from "../../../src/control/index.ts";
import { KeeperClient } from "../../../src/rootfs/index.ts";

const LAYER = "a".repeat(64);
const never = new AbortController().signal;
const wait = { signal: never };
/** Above the kernel's largest process id: no such process. */
const DEAD_PID = 2 ** 22 + 5;

describe("KeeperClient", () => {
  let folder: string;
  let server: ControlServer | undefined;
  let client: KeeperClient;
  let calls: { method: string; request: Record<string, unknown> }[];
  let connection: ControlConnection | undefined;
  let answers: Partial<Record<string, () => Promise<object>>>;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "faasnet-c-"));
    calls = [];
    answers = {};
    client = new KeeperClient({
      socketPath: join(folder, "k.sock"),
      clock: systemClock,
      log: silentLogger,
      readWaitMs: 1234,
      onFetch: (_layer, range) =>
        Promise.resolve(
          range.start === 0 ? { present: [range] } : { data: new Uint8Array(range.end) },
        ),
    });
  });

  afterEach(async () => {
    await client[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  async function keeper(instance: string, pid = process.pid): Promise<void> {
    const handle =
      (method: string): Handlers[string] =>
      async (request, context) => {
        connection = context.connection;
        calls.push({ method, request: request as Record<string, unknown> });
        const answer = answers[method];
        if (answer !== undefined) return answer();
        return method === "Keeper.Hello" ? { pid, instance, version: "0" } : {};
      };
    const methods = [
      "Hello",
      "ServeLayer",
      "StopLayer",
      "ServeTree",
      "StopTree",
      "Present",
      "Drop",
    ];
    const handlers = methods.map((name) => [`Keeper.${name}`, handle(`Keeper.${name}`)] as const);
    server = await ControlServer.listen(join(folder, "k.sock"), Object.fromEntries(handlers));
  }

  async function stopKeeper(): Promise<void> {
    await server?.[Symbol.asyncDispose]();
    server = undefined;
  }

  const methodsCalled = (): string[] => calls.map((call) => call.method);

  it("waits for a keeper, says Hello first and pads the device", async () => {
    const served = client.serveLayer(
      { layerId: LAYER, tarBytes: 700, decodedPath: "/d", present: () => [], mountpoint: "/l/0" },
      wait,
    );
    await keeper("one");
    await served;
    assert.equal(calls[0]?.method, "Keeper.Hello");
    const { size, tarBytes, readWaitMs } = calls.at(-1)?.request ?? {};
    assert.deepEqual(
      { size, tarBytes, readWaitMs },
      { size: 1024, tarBytes: 700, readWaitMs: 1234 },
    );
    assert.deepEqual([...client.servedLayers], [[LAYER, "/l/0"]]);
  });

  it("serves layers, then trees, again with what is present then, and tells of the change", async () => {
    const present = RangeSet.of([{ start: 0, end: 100 }]);
    let resets = 0;
    client.onConnected((isOther) => {
      if (isOther) resets += 1;
      return Promise.resolve();
    });
    await keeper("one");
    const layer = { layerId: LAYER, tarBytes: 700, decodedPath: "/d", mountpoint: "" };
    await client.serveLayer({ ...layer, present: () => present }, wait);
    const tree = { treeId: LAYER, mountpoint: "/c", metadataPath: "/m", layerIds: [LAYER] };
    await client.serveTree(tree, wait);
    await stopKeeper();
    present.remove({ start: 0, end: 50 });
    calls = [];
    await keeper("two");
    await client.connected(wait);
    assert.deepEqual(methodsCalled(), ["Keeper.Hello", "Keeper.ServeLayer", "Keeper.ServeTree"]);
    assert.deepEqual(calls[1]?.request["present"], [{ start: 50, end: 100 }]);
    assert.equal(resets, 1);
  });

  it("does not resolve a drop while the keeper may be alive, and asks the next one", async () => {
    await keeper("one");
    await client.connected(wait);
    await stopKeeper(); // but its process (ours) lives
    let isDropped = false;
    const dropped = client.drop(LAYER, [{ start: 0, end: 5 }], wait).then(() => (isDropped = true));
    await systemClock.sleep(100, wait);
    assert.equal(isDropped, false);
    await keeper("one");
    await dropped;
    assert.equal(calls.at(-1)?.method, "Keeper.Drop");
  });

  it("resolves a drop when the keeper that knew of it is dead", async () => {
    await keeper("one", DEAD_PID);
    await client.connected(wait);
    answers["Keeper.Drop"] = () => new Promise(() => undefined);
    const dropped = client.drop(LAYER, [{ start: 0, end: 5 }], wait);
    await stopKeeper();
    await dropped;
    await client.drop(LAYER, [{ start: 5, end: 9 }], wait);
  });

  it("does not let a later drop overtake what is present", async () => {
    await keeper("one");
    await client.connected(wait);
    client.present(LAYER, [{ start: 0, end: 5 }]);
    await client.drop(LAYER, [{ start: 0, end: 5 }], wait);
    assert.deepEqual(methodsCalled().slice(1), ["Keeper.Present", "Keeper.Drop"]);
  });

  it("answers the keeper's fetches, and refuses bytes of the wrong length", async () => {
    await keeper("one");
    await client.connected(wait);
    assert.ok(connection !== undefined);
    const fetch = (start: number, end: number): Promise<unknown> | undefined =>
      connection?.call("Fetcher.Fetch", { layer: LAYER, start, end }, wait);
    const answer = (await fetch(0, 10)) as { present: unknown };
    assert.deepEqual(answer.present, [{ start: 0, end: 10 }]);
    await assert.rejects(fetch(5, 10) ?? Promise.resolve(), { code: "internal" });
    await assert.rejects(fetch(5, 5) ?? Promise.resolve(), { code: "invalid-argument" });
  });

  it("takes 'in use' for an answer and other errors for errors", async () => {
    await keeper("one");
    answers["Keeper.StopLayer"] = () =>
      Promise.reject(new DaemonError("failed-precondition", "in use"));
    assert.equal(await client.stopLayer(LAYER, wait), false);
    answers["Keeper.StopLayer"] = () => Promise.reject(new DaemonError("internal", "broken"));
    await assert.rejects(client.stopLayer(LAYER, wait), { code: "internal" });
  });

  it("ends every wait when it is closed", async () => {
    const waits = [client.connected(wait), client.drop(LAYER, [{ start: 0, end: 1 }], wait)];
    await client[Symbol.asyncDispose]();
    for (const one of waits) await assert.rejects(one, { code: "canceled" });
  });
});
