/** The abort helpers: reasons are DaemonErrors and nothing is left listening. */
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { abortReason, onAbort, raceAbort, throwIfAborted } from "../../../src/base/abort.ts";
import { DaemonError } from "../../../src/base/errors.ts";

describe("abortReason", () => {
  it("keeps a reason that is ours", () => {
    const reason = new DaemonError("unavailable", "gone");

    assert.equal(abortReason(AbortSignal.abort(reason)), reason);
  });

  it("calls a plain abort canceled", () => {
    assert.equal(abortReason(AbortSignal.abort()).code, "canceled");
  });

  it("calls a timeout deadline-exceeded", () => {
    const timeout = AbortSignal.abort(new DOMException("late", "TimeoutError"));

    assert.equal(abortReason(timeout).code, "deadline-exceeded");
  });
});

describe("throwIfAborted", () => {
  it("throws the reason of an aborted signal only", () => {
    throwIfAborted(new AbortController().signal);

    assert.throws(
      () => {
        throwIfAborted(AbortSignal.abort());
      },
      { code: "canceled" },
    );
  });
});

describe("raceAbort", () => {
  it("gives the promise's value and stops listening to the signal", async () => {
    const { signal } = new AbortController();

    assert.equal(await raceAbort(Promise.resolve(3), signal), 3);
    assert.equal(getEventListeners(signal, "abort").length, 0);
  });

  it("gives the promise's failure and stops listening to the signal", async () => {
    const { signal } = new AbortController();

    await assert.rejects(raceAbort(Promise.reject(new RangeError("x")), signal), RangeError);
    assert.equal(getEventListeners(signal, "abort").length, 0);
  });

  it("rejects with the reason when aborted while waiting", async () => {
    const controller = new AbortController();
    const waiting = raceAbort(new Promise<never>(() => undefined), controller.signal);

    controller.abort(new DaemonError("canceled", "the caller left"));

    await assert.rejects(waiting, { code: "canceled", message: "the caller left" });
  });

  it("takes over a failure that comes after the abort", async () => {
    const unhandled: unknown[] = [];
    const onUnhandled = (reason: unknown): void => {
      unhandled.push(reason);
    };
    process.on("unhandledRejection", onUnhandled);
    try {
      const failing = Promise.reject(new RangeError("late"));
      await assert.rejects(raceAbort(failing, AbortSignal.abort()), { code: "canceled" });
      await new Promise((resolve) => setImmediate(resolve));
    } finally {
      process.off("unhandledRejection", onUnhandled);
    }

    assert.deepEqual(unhandled, []);
  });
});

describe("onAbort", () => {
  it("lets any number wait for one signal without a warning", async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => {
      warnings.push(warning);
    };
    process.on("warning", onWarning);
    const controller = new AbortController();
    let calls = 0;

    for (let index = 0; index < 50; index += 1) onAbort(controller.signal, () => (calls += 1));
    onAbort(controller.signal, () => (calls += 100))();
    controller.abort();
    await new Promise((resolve) => setImmediate(resolve));

    process.off("warning", onWarning);
    assert.equal(calls, 50);
    assert.deepEqual(warnings, []);
  });
});
