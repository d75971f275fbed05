/** Scope: order, failures, idempotence. */
import assert from "node:assert/strict";
import { Scope } from "../../../src/base/scope.ts";

describe("Scope", () => {
  it("runs its clean-ups last first, each after the one before has ended", async () => {
    const order: string[] = [];
    const scope = new Scope();
    scope.defer(() => {
      order.push("first");
    });
    scope.defer(async () => {
      await Promise.resolve();
      order.push("second");
    });

    await scope[Symbol.asyncDispose]();

    assert.deepEqual(order, ["second", "first"]);
  });

  it("returns what it is given to own and disposes it", async () => {
    let isDisposed = false;
    const owner: AsyncDisposable = {
      [Symbol.asyncDispose]: async () => {
        isDisposed = true;
      },
    };
    {
      await using scope = new Scope();
      assert.equal(scope.use(owner), owner);
    }

    assert.equal(isDisposed, true);
  });

  it("runs all clean-ups when some fail, and throws every failure", async () => {
    const scope = new Scope();
    let ran = 0;
    const failures = [new RangeError("one"), new TypeError("two")];
    scope.defer(() => {
      ran += 1;
    });
    for (const failure of failures) {
      scope.defer(() => {
        throw failure;
      });
    }

    await assert.rejects(scope[Symbol.asyncDispose](), (error: unknown) => {
      assert.ok(error instanceof AggregateError);
      assert.deepEqual(error.errors, failures.toReversed());
      return true;
    });
    assert.equal(ran, 1);
  });

  it("runs its clean-ups once when disposed twice at once", async () => {
    let ran = 0;
    const scope = new Scope();
    scope.defer(() => {
      ran += 1;
    });

    await Promise.all([scope[Symbol.asyncDispose](), scope[Symbol.asyncDispose]()]);

    assert.equal(ran, 1);
  });

  it("refuses new owners once disposed", async () => {
    const scope = new Scope();
    await scope[Symbol.asyncDispose]();

    assert.throws(
      () => {
        scope.defer(() => undefined);
      },
      { code: "failed-precondition" },
    );
  });
});
