/** The real process: entry point, standard streams, exit code. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { copyFile, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { packageRoot } from "../../../src/base/package-root.ts";

const MAIN = fileURLToPath(new URL("../../../src/cli/main.js", import.meta.url));

interface Ended {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(
  argv: readonly string[],
  options: { readonly closesStdout?: boolean } = {},
): Promise<Ended> {
  const child = spawn(process.execPath, argv, { stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  if (options.closesStdout === true) child.stdout.destroy();
  else child.stdout.on("data", (piece: Buffer) => (stdout += piece.toString()));
  child.stderr.on("data", (piece: Buffer) => (stderr += piece.toString()));
  const exitCode = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { exitCode, stdout, stderr };
}

describe("the process faasnet", () => {
  it("prints its version and ends by itself", async () => {
    const { exitCode, stdout, stderr } = await run([MAIN, "--version"]);

    assert.deepEqual({ exitCode, stderr }, { exitCode: 0, stderr: "" });
    assert.match(stdout, /^\d+\.\d+\.\d+\n$/);
  });

  it("ends with the command's exit code", async () => {
    const { exitCode, stderr } = await run([MAIN, "status", "--state", "/nonexistent"]);

    assert.equal(exitCode, 4);
    assert.match(stderr, /^faasnet: no daemon answers at \/nonexistent\/image\.sock\n/);
  });

  it("says nothing when its output is closed", async () => {
    const { stderr } = await run([MAIN, "config", "default"], { closesStdout: true });

    assert.equal(stderr, "");
  });
});

describe("bin/faasnet", () => {
  it("says what to do when the program is not built", async () => {
    const folder = await mkdtemp(join(tmpdir(), "faasnet-bin-"));
    try {
      await mkdir(join(folder, "bin"));
      await copyFile(join(packageRoot(), "bin/faasnet"), join(folder, "bin/faasnet.mjs"));

      const result = await run([join(folder, "bin/faasnet.mjs")]);

      assert.deepEqual(result, {
        exitCode: 1,
        stdout: "",
        stderr: "faasnet: not built yet: run `npm run build`\n",
      });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
