/** containerd's own snapshotter suite, through the Go client that containerd uses itself. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { access, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { packageRoot } from "../../../src/base/package-root.ts";
import { Scope } from "../../../src/base/scope.ts";
import { startDaemon, temporaryFolder } from "../../support/snapshotter/daemon.ts";

const run = promisify(execFile);
/** The first build compiles containerd's packages. */
const BUILD_MS = 600_000;
const SUITE_MS = 120_000;
const SUB_TESTS = 21;

async function findGo(): Promise<string | undefined> {
  for (const candidate of ["go", "/usr/local/go/bin/go"]) {
    const found = await run(candidate, ["version"]).then(
      () => candidate,
      () => undefined,
    );
    if (found !== undefined) return found;
  }
  return undefined;
}

async function build(go: string): Promise<string> {
  const folder = join(packageRoot(), ".build", "conformance");
  const binary = join(folder, "conformance");
  await mkdir(folder, { recursive: true });
  await run(go, ["test", "-c", "-o", binary, "."], {
    cwd: join(packageRoot(), "test", "conformance"),
    env: { ...process.env, GOFLAGS: "-buildvcs=false -mod=readonly" },
  });
  await access(binary);
  return binary;
}

describe("containerd's snapshotter suite", () => {
  it(`passes, all ${SUB_TESTS} of it`, async function () {
    this.timeout(BUILD_MS + SUITE_MS);
    const go = await findGo();
    if (go === undefined || process.getuid?.() !== 0) {
      const missing = go === undefined ? "Go" : "root";
      assert.notEqual(process.env["CI"], "true", `${missing} is missing`);
      console.log(`      skipped: ${missing} is missing`);
      this.skip();
    }
    const binary = await build(go);
    const scope = new Scope();
    try {
      const folder = await temporaryFolder(scope, "fn-suite-");
      const { address } = await startDaemon(scope, { folder });
      const { stdout } = await run(binary, ["-test.v", "-test.count=1", "-test.root"], {
        env: { ...process.env, FAASNET_SNAPSHOTTER: address, TMPDIR: folder },
        maxBuffer: 64 * 1024 * 1024,
        timeout: SUITE_MS,
      }).catch((error: unknown) => {
        const output = error instanceof Error && "stdout" in error ? String(error.stdout) : "";
        assert.fail(`${String(error)}\n${output.slice(-20_000)}`);
      });
      const passed = stdout.match(/^ {4}--- PASS: TestSnapshotter\//gm) ?? [];
      assert.equal(passed.length, SUB_TESTS, stdout.slice(-5000));
      assert.doesNotMatch(stdout, /--- (?:FAIL|SKIP)/);
    } finally {
      await scope[Symbol.asyncDispose]();
    }
  });
});
