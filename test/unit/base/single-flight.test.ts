/** SingleFlight: sharing, leaving, and what happens to the work. */
import assert from "node:assert/strict";
import { SingleFlight } from "../../../src/base/single-flight.ts";
import { DaemonError } from "../../../src/base/errors.ts";

interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
}

function deferred<T>(): Deferred<T> {
  let resolve: (value: T) => void = () => undefined;
  let reject: (error: Error) => void = () => undefined;
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}

const never = new AbortController().signal;

describe("SingleFlight", () => {
  it("runs the work once for callers that overlap and gives all the same result", async () => {
    const flights = new SingleFlight<string, number>();
    const work = deferred<number>();
    let runs = 0;
    const start = async (): Promise<number> => {
      runs += 1;
      return work.promise;
    };

    const results = [1, 2, 3].map(async () => flights.run("a", start, { signal: never }));
    work.resolve(7);

    assert.deepEqual(await Promise.all(results), [7, 7, 7]);
    assert.equal(runs, 1);
    assert.equal(flights.size, 0);
  });

  it("runs different keys apart", async () => {
    const flights = new SingleFlight<string, string>();

    const results = await Promise.all(
      ["a", "b"].map(async (key) => flights.run(key, async () => key, { signal: never })),
    );

    assert.deepEqual(results, ["a", "b"]);
  });

  it("starts again after the work has ended", async () => {
    const flights = new SingleFlight<string, number>();
    let runs = 0;
    const work = async (): Promise<number> => (runs += 1);

    await flights.run("a", work, { signal: never });
    await flights.run("a", work, { signal: never });

    assert.equal(runs, 2);
  });

  it("gives a failure to all who wait and starts again for the next caller", async () => {
    const flights = new SingleFlight<string, number>();
    const work = deferred<number>();

    const first = flights.run("a", async () => work.promise, { signal: never });
    const second = flights.run("a", async () => work.promise, { signal: never });
    work.reject(new DaemonError("unavailable", "no route"));

    await assert.rejects(first, { code: "unavailable" });
    await assert.rejects(second, { code: "unavailable" });
    assert.equal(await flights.run("a", async () => 3, { signal: never }), 3);
  });

  it("rejects when the work throws before returning a promise, and keeps nothing", async () => {
    const flights = new SingleFlight<string, number>();
    const work = (): Promise<number> => {
      throw new DaemonError("internal", "broken");
    };

    await assert.rejects(flights.run("a", work, { signal: never }), { code: "internal" });

    assert.equal(flights.size, 0);
  });

  it("lets an aborted caller leave while the others go on", async () => {
    const flights = new SingleFlight<string, number>();
    const work = deferred<number>();
    const controller = new AbortController();
    let workSignal: AbortSignal | undefined;

    const leaving = flights.run(
      "a",
      async (signal) => {
        workSignal = signal;
        return work.promise;
      },
      { signal: controller.signal },
    );
    const staying = flights.run("a", async () => 0, { signal: never });
    controller.abort();

    await assert.rejects(leaving, { code: "canceled" });
    assert.equal(workSignal?.aborted, false);
    work.resolve(5);
    assert.equal(await staying, 5);
  });

  it("aborts the work when the last caller leaves, and a newcomer starts a new one", async () => {
    const flights = new SingleFlight<string, number>();
    const controllers = [new AbortController(), new AbortController()];
    let workSignal: AbortSignal | undefined;

    const callers = controllers.map(async ({ signal }) =>
      flights.run(
        "a",
        async (inner) => {
          workSignal = inner;
          return deferred<number>().promise;
        },
        { signal },
      ),
    );
    for (const controller of controllers) controller.abort();

    for (const caller of callers) await assert.rejects(caller, { code: "canceled" });
    assert.equal(workSignal?.aborted, true);
    assert.equal(await flights.run("a", async () => 9, { signal: never }), 9);
  });

  it("an abandoned flight that ends late does not evict the flight that replaced it", async () => {
    const flights = new SingleFlight<string, number>();
    const old = deferred<number>();
    const fresh = deferred<number>();
    const controller = new AbortController();

    const abandoned = flights.run("a", async () => old.promise, { signal: controller.signal });
    controller.abort();
    await assert.rejects(abandoned);
    const current = flights.run("a", async () => fresh.promise, { signal: never });
    old.resolve(1);
    await old.promise;

    assert.equal(flights.has("a"), true);
    fresh.resolve(2);
    assert.equal(await current, 2);
  });

  it("never aborts work that one of its callers detached", async () => {
    const flights = new SingleFlight<string, number>();
    const work = deferred<number>();
    const controllers = [new AbortController(), new AbortController()];
    let workSignal: AbortSignal | undefined;
    const start = async (signal: AbortSignal): Promise<number> => {
      workSignal = signal;
      return work.promise;
    };

    const callers = controllers.map(async ({ signal }, index) =>
      flights.run("a", start, { signal, detached: index === 0 }),
    );
    for (const controller of controllers) controller.abort();
    for (const caller of callers) await assert.rejects(caller);

    assert.equal(workSignal?.aborted, false);
    const joined = flights.run("a", async () => 0, { signal: never });
    work.resolve(4);
    assert.equal(await joined, 4);
  });

  it("does not abort the work's signal after it has ended", async () => {
    const flights = new SingleFlight<string, number>();
    let workSignal: AbortSignal | undefined;

    await flights.run(
      "a",
      async (signal) => {
        workSignal = signal;
        return 1;
      },
      { signal: never },
    );

    assert.equal(workSignal?.aborted, false);
  });

  it("does not start anything for a caller that is already aborted", async () => {
    const flights = new SingleFlight<string, number>();
    let runs = 0;

    const caller = flights.run("a", async () => (runs += 1), { signal: AbortSignal.abort() });

    await assert.rejects(caller, { code: "canceled" });
    assert.equal(runs, 0);
  });
});
