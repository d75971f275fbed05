/** Finding the package from the built program. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageRoot, protoPath } from "../../../src/base/package-root.ts";

describe("packageRoot", () => {
  it("is the folder with package.json, and the protocol files lie below it", () => {
    assert.ok(existsSync(join(packageRoot(), "package.json")));
    assert.ok(existsSync(protoPath("control.proto")));
  });
});
