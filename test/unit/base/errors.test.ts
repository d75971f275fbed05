/** The error class and what is read out of any thrown value. */
import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import {
  assert as assertInvariant,
  DaemonError,
  errorCode,
  errorMessage,
  isErrorCode,
  RETRYABLE,
  systemErrorName,
  withContext,
} from "../../../src/base/errors.ts";

describe("errorCode", () => {
  for (const [name, value, expected] of [
    ["ours", new DaemonError("not-found", "x"), "not-found"],
    ["an abort", new DOMException("x", "AbortError"), "canceled"],
    ["a timeout", new DOMException("x", "TimeoutError"), "deadline-exceeded"],
    ["another error", new TypeError("x"), "internal"],
    ["a string", "x", "internal"],
    ["nothing", undefined, "internal"],
  ] as const) {
    it(`of ${name} is ${expected}`, () => {
      assert.equal(errorCode(value), expected);
    });
  }
});

describe("errorMessage", () => {
  it("joins the messages of the causes", () => {
    const error = withContext(new RangeError("at 4096 of 8192 bytes"), "blob ended early");

    assert.equal(errorMessage(error), "blob ended early: at 4096 of 8192 bytes");
  });

  it("says a repeated message once", () => {
    const error = new DaemonError("internal", "same", { cause: new RangeError("same") });

    assert.equal(errorMessage(error), "same");
  });

  it("names the first members of an AggregateError", () => {
    const error = new AggregateError([new Error("one"), new Error("two")], "clean-up failed");

    assert.equal(errorMessage(error), "clean-up failed: one; two");
  });

  it("uses the members when an AggregateError has no message", () => {
    const refused = [new Error("connect ECONNREFUSED ::1:1"), new Error("connect ECONNREFUSED")];

    assert.equal(
      errorMessage(new AggregateError(refused)),
      "connect ECONNREFUSED ::1:1; connect ECONNREFUSED",
    );
  });

  it("ends on a circle of causes", () => {
    const error = new Error("a");
    error.cause = new Error("b", { cause: error });

    assert.match(errorMessage(error), /^a: b: a: b/);
  });

  it("shows thrown values that are no errors", () => {
    assert.equal(errorMessage("plain"), "plain");
    assert.equal(errorMessage({ a: 1 }), "{ a: 1 }");
    assert.equal(errorMessage(undefined), "undefined");
  });

  it("names the class of an error without a message", () => {
    assert.equal(errorMessage(new TypeError("")), "TypeError");
  });
});

describe("withContext", () => {
  it("keeps the code, or takes the one given", () => {
    const cause = new DaemonError("data-loss", "bad");

    assert.equal(withContext(cause, "reading").code, "data-loss");
    assert.equal(withContext(cause, "reading", "unavailable").code, "unavailable");
    assert.equal(withContext(cause, "reading").cause, cause);
  });
});

describe("isErrorCode", () => {
  it("accepts the codes and nothing that Object inherits", () => {
    for (const code of Object.keys(RETRYABLE)) assert.equal(isErrorCode(code), true);
    for (const value of ["toString", "", "io", 3, undefined])
      assert.equal(isErrorCode(value), false);
  });
});

describe("systemErrorName", () => {
  it("is the errno name of a system error", async () => {
    const error: unknown = await stat("/nonexistent").catch((thrown: unknown) => thrown);

    assert.equal(systemErrorName(error), "ENOENT");
    assert.equal(systemErrorName(new Error("x")), undefined);
    assert.equal(systemErrorName("ENOENT"), undefined);
  });
});

describe("assert", () => {
  it("throws internal with what was asserted", () => {
    assert.throws(
      () => {
        assertInvariant(Number.isNaN(0), "offset is aligned");
      },
      { code: "internal", message: "assertion failed: offset is aligned" },
    );
  });
});
