import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DaemonError, errorMessage } from "../../../../src/base/errors.ts";
import { isSameRing, parseKeys, readKeyFile } from "../../../../src/peer/node/key-file.ts";

const ONE = Buffer.alloc(32, 1);
const TWO = Buffer.alloc(32, 2);

describe("A key file", () => {
  it("has keys as base64 or hex, the sealing one first, and comments", () => {
    const ring = parseKeys(`# ours\n${ONE.toString("base64")}  # new\n\n${TWO.toString("hex")}\n`);
    assert.deepEqual(
      ring.keys.map(({ secret }) => Buffer.from(secret)),
      [ONE, TWO],
    );
    assert.deepEqual(Buffer.from(ring.primary.secret), ONE);
  });

  it("is refused with the line that is no key, and without the key", () => {
    const texts = ["", "# nothing", "abc", `${ONE.toString("hex")}\n${TWO.toString("hex")}00`];
    for (const text of texts) assert.throws(() => parseKeys(text), DaemonError);
    const short = TWO.subarray(1).toString("base64");
    assert.throws(
      () => parseKeys(`${ONE.toString("hex")}\n${short}`),
      (error: Error) => error.message.includes("line 2") && !error.message.includes(short),
    );
    const nine = Array.from({ length: 9 }, (_, index) => Buffer.alloc(32, index).toString("hex"));
    assert.throws(() => parseKeys(nine.join("\n")), /more than 8/);
  });

  it("says when others can read it", async () => {
    const folder = await mkdtemp(join(tmpdir(), "faasnet-keys-"));
    try {
      const path = join(folder, "keys");
      await writeFile(path, ONE.toString("hex"), { mode: 0o600 });
      assert.equal((await readKeyFile(path)).isExposed, false);
      await chmod(path, 0o644);
      assert.equal((await readKeyFile(path)).isExposed, true);
      await writeFile(path, "x".repeat(20_000));
      await assert.rejects(readKeyFile(path), (error) =>
        errorMessage(error).includes("20000 bytes"),
      );
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("is the same with the same keys in the same order", () => {
    const both = parseKeys(`${ONE.toString("hex")}\n${TWO.toString("hex")}`);
    const other = parseKeys(`${TWO.toString("hex")}\n${ONE.toString("hex")}`);
    assert.ok(isSameRing(both, both));
    assert.ok(!isSameRing(both, other));
  });
});
