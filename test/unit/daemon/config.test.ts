/** The configuration file: defaults, mistakes, and the printed default file. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { packageRoot } from "../../../src/base/package-root.ts";
import { DEFAULT_CONFIG_TOML } from "../../../src/daemon/config-file.ts";
import { loadConfig, parseConfig } from "../../../src/daemon/config.ts";

describe("configuration", () => {
  it("has the defaults that the default file prints", () => {
    assert.deepEqual(parseConfig(DEFAULT_CONFIG_TOML, "x"), parseConfig("", "x"));
  });

  it("names every key in the default file", () => {
    const keys = (value: object): string[] =>
      Object.entries(value).flatMap(([key, inner]) =>
        typeof inner === "object" && !Array.isArray(inner) ? keys(inner as object) : [key],
      );

    for (const key of keys(parseConfig("", "x"))) {
      const snake = key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
      assert.match(DEFAULT_CONFIG_TOML, new RegExp(`^${snake} = `, "m"));
    }
  });

  it("is deployed as it is printed", async () => {
    const deployed = await readFile(join(packageRoot(), "deploy/config.toml"), "utf8");

    assert.equal(deployed, DEFAULT_CONFIG_TOML);
  });

  it("reports all mistakes at once, by the file's own key names", () => {
    const text = 'log_level = "loud"\nquota = 1\n[cache]\nquota_bytes = -1\n';

    assert.throws(() => parseConfig(text, "/x.toml"), {
      code: "invalid-argument",
      message: /x\.toml: .*log_level.*cache\.quota_bytes.*unknown key quota/s,
    });
  });

  it("refuses a relative root", () => {
    assert.throws(() => parseConfig('root = "var"', "x"), /root: .*absolute/);
  });

  it("refuses what is not TOML, naming the file", () => {
    assert.throws(() => parseConfig("root = ", "/x.toml"), /x\.toml is not valid TOML/);
  });

  describe("loaded from a file", () => {
    let folder: string;
    before(async () => {
      folder = await mkdtemp(join(tmpdir(), "faasnet-config-"));
    });
    after(async () => {
      await rm(folder, { recursive: true });
    });

    it("puts the socket into the state folder, and overrides win", async () => {
      const file = join(folder, "a.toml");
      await writeFile(file, `state = "/run/a"\n[mount]\nmode = "loop"\n`);

      const config = await loadConfig({ file, overrides: { state: "/run/b" } });

      assert.equal(config.address, "/run/b/faasnet.sock");
      assert.equal(config.mount.mode, "loop");
    });

    it("says which file is missing", async () => {
      const file = join(folder, "none.toml");

      await assert.rejects(loadConfig({ file }), { code: "not-found", message: /none\.toml/ });
    });
  });
});
