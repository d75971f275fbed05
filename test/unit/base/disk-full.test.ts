/** A full disk, as errors and messages name it. */
import assert from "node:assert/strict";
import { errorCode, isDiskFull, withContext } from "../../../src/base/errors.ts";
import { mountHolding, parseMountInfo } from "../../../src/base/mountinfo.ts";

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: write`), { code });
}

describe("isDiskFull", () => {
  it("sees a full disk or quota through what wraps it, and nothing else", () => {
    assert.equal(isDiskFull(withContext(systemError("ENOSPC"), "cannot write x")), true);
    assert.equal(isDiskFull(systemError("EDQUOT")), true);
    assert.equal(isDiskFull(withContext(systemError("EIO"), "cannot write x")), false);
    assert.equal(isDiskFull("ENOSPC"), false);
  });

  it("makes the code resource-exhausted", () => {
    assert.equal(errorCode(systemError("ENOSPC")), "resource-exhausted");
    assert.equal(errorCode(withContext(systemError("ENOSPC"), "x")), "resource-exhausted");
    assert.equal(errorCode(systemError("EIO")), "internal");
  });
});

describe("mountHolding", () => {
  const mounts = parseMountInfo(
    [
      "1 0 8:1 / / rw - ext4 /dev/a rw",
      "2 1 8:2 / /var rw - ext4 /dev/b rw",
      "3 1 8:3 / /var/lib rw - xfs /dev/c rw",
      "4 3 8:4 / /var/lib rw - ext4 /dev/d rw",
      "",
    ].join("\n"),
  );

  for (const [path, source] of [
    ["/var/lib/faasnet/x", "/dev/d"],
    ["/var/lib", "/dev/d"],
    ["/var/library", "/dev/b"],
    ["/etc", "/dev/a"],
    ["/", "/dev/a"],
  ] as const) {
    it(`of ${path} is ${source}`, () => {
      assert.equal(mountHolding(mounts, path)?.source, source);
    });
  }
});
