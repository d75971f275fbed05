/** What deploy/ holds is accepted by the programs that it is for. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  CONTAINERD_LINES,
  containerdBinaries,
  needs,
  programPath,
  projectFolder,
  run,
} from "../support/lab/index.ts";

const deploy = (...parts: readonly string[]): string => join(projectFolder, "deploy", ...parts);

describe("The files of deploy/", function () {
  this.timeout(30_000);

  for (const line of CONTAINERD_LINES) {
    it(`hold a fragment that containerd ${line} takes over`, async function () {
      needs(this, { containerd: [line] });
      const file = deploy("containerd", line === "2" ? "config-v3.toml" : "config-v2.toml");
      const containerd = join(containerdBinaries(line) ?? "", "containerd");

      const { stdout, stderr } = await run(containerd, ["--config", file, "config", "dump"]);

      assert.equal(stderr, "");
      assert.match(stdout, /address = ["']\/run\/faasnet\/faasnet\.sock["']/);
      assert.match(stdout, /snapshotter = ["']faasnet["']/);
    });
  }

  it("hold the program's default configuration", async function () {
    needs(this, { program: true });

    const { stdout } = await run(programPath, ["config", "default"]);

    assert.equal(await readFile(deploy("config.toml"), "utf8"), stdout);
  });

  it("hold a unit that leaves the keeper alone and gives no mount namespace", async () => {
    const unit = await readFile(deploy("systemd", "faasnet.service"), "utf8");

    assert.match(unit, /^KillMode=process$/m);
    assert.doesNotMatch(unit, /^(Private|Protect)[A-Za-z]+=/m);
  });
});
