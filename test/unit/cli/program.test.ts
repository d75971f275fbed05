/** The command line without a daemon: parsing, help, exit codes, errors. */
import assert from "node:assert/strict";
import { CliError } from "../../../src/cli/cli-error.ts";
import { EXIT, EXIT_BY_ERROR } from "../../../src/cli/exit-codes.ts";
import type { MountOptions } from "../../../src/daemon/index.ts";
import { DaemonError } from "../../../src/base/errors.ts";
import type { ErrorCode } from "../../../src/base/errors.ts";
import { FAKE_SUMMARY, FakeDaemonApi, runCommand } from "../../support/fake-daemon-api.ts";

const COMMANDS = [
  ["daemon"],
  ["mount"],
  ["umount"],
  ["inspect"],
  ["fetch"],
  ["status"],
  ["cache"],
  ["cache", "clear"],
  ["config", "default"],
  ["config", "check"],
];

describe("faasnet", () => {
  it("prints its version", async () => {
    const result = await runCommand(["--version"]);

    assert.deepEqual(result, { exitCode: EXIT.ok, stdout: "1.2.3\n", stderr: "" });
  });

  it("names every command and exit code in its help", async () => {
    const { exitCode, stdout } = await runCommand(["--help"]);

    assert.equal(exitCode, EXIT.ok);
    for (const [name = ""] of COMMANDS) assert.match(stdout, new RegExp(`^  ${name} `, "m"));
    for (const code of Object.values(EXIT)) assert.match(stdout, new RegExp(`^  ${code}  `, "m"));
  });

  for (const command of COMMANDS) {
    it(`gives help with an example (${command.join(" ")})`, async () => {
      const { exitCode, stdout, stderr } = await runCommand([...command, "--help"]);

      assert.equal(exitCode, EXIT.ok);
      assert.match(stdout, new RegExp(`Examples:\n  \\$ faasnet ${command[0] ?? ""}`));
      assert.equal(stderr, "");
    });
  }

  for (const [argv, expected] of [
    [["bogus"], /^faasnet: unknown command 'bogus'/],
    [["status", "--bogus"], /^faasnet: unknown option '--bogus'/],
    [["mount", "image"], /^faasnet: missing required argument 'dir'/],
    [["mount", "--mode", "nfs", "image", "/mnt"], /argument 'nfs' is invalid. Allowed choices/],
    [["umount", "/a", "/b"], /too many arguments/],
    [["config", "check", "a", "b"], /too many arguments/],
    [["stat"], /Did you mean status\?/],
  ] as const) {
    it(`refuses a wrong command line with exit code 2 (${argv.join(" ")})`, async () => {
      const { exitCode, stdout, stderr } = await runCommand(argv);

      assert.equal(exitCode, EXIT.usage);
      assert.match(stderr, expected);
      assert.equal(stdout, "");
    });
  }

  it("shows the help on stderr with exit code 2 when nothing is asked", async () => {
    const { exitCode, stderr } = await runCommand([]);

    assert.equal(exitCode, EXIT.usage);
    assert.match(stderr, /^Usage: faasnet/);
  });
});

describe("errors of a command", () => {
  async function failWith(error: unknown): Promise<{ exitCode: number; stderr: string }> {
    const api = new FakeDaemonApi();
    api.mount = async () => {
      throw error;
    };
    return runCommand(["mount", "image", "/mnt"], { api });
  }

  for (const [code, exitCode] of Object.entries(EXIT_BY_ERROR)) {
    it(`end with exit code ${exitCode} (${code})`, async () => {
      const result = await failWith(new DaemonError(code as ErrorCode, "blob gone"));

      assert.equal(result.exitCode, exitCode);
      assert.match(result.stderr, /^faasnet: blob gone\n/);
    });
  }

  it("say what, why and what to do", async () => {
    const cause = new Error("connect ECONNREFUSED 127.0.0.1:5000");
    const error = new DaemonError("unavailable", "cannot resolve localhost:5000/a:1", { cause });

    const { stderr } = await failWith(error);

    assert.equal(
      stderr,
      "faasnet: cannot resolve localhost:5000/a:1: connect ECONNREFUSED 127.0.0.1:5000\n" +
        "  check the network and the registry, then try again\n",
    );
  });

  it("carry their own hint and exit code where a command knows better", async () => {
    const error = new CliError("unavailable", "no fuse", {
      hint: "load the module",
      exitCode: EXIT.denied,
    });

    assert.deepEqual(await failWith(error), {
      exitCode: EXIT.denied,
      stdout: "",
      stderr: "faasnet: no fuse\n  load the module\n",
    });
  });

  it("hold no secrets and no terminal control", async () => {
    const { stderr } = await failWith(
      new DaemonError("unavailable", "GET https://h/b?X-Amz-Signature=abcdef: \u001b[2Jboo"),
    );

    assert.equal(stderr.includes("abcdef"), false);
    assert.equal(stderr.includes("\u001b"), false);
    assert.match(stderr, /\\x1b\[2Jboo/);
  });

  it("that are no DaemonErrors end with exit code 1", async () => {
    assert.equal((await failWith(new TypeError("x is undefined"))).exitCode, EXIT.failure);
  });
});

describe("faasnet mount", () => {
  it("passes image, absolute folder, mode, platform and places", async () => {
    const api = new FakeDaemonApi();

    const { exitCode, stdout } = await runCommand(
      "mount --mode fuse --platform linux/arm64 --root /r --state /s --config /c debian mnt".split(
        " ",
      ),
      { api },
    );

    assert.equal(exitCode, EXIT.ok);
    assert.deepEqual(api.calls.at(-1), [
      "runMount",
      {
        image: "debian",
        target: `${process.cwd()}/mnt`,
        mode: "fuse",
        platform: "linux/arm64",
        root: "/r",
        state: "/s",
        configFile: "/c",
      },
    ]);
    assert.equal(
      stdout,
      "26,903 files, 392 MB in the image, 43.1 MB fetched; blocks: 12 memory, 1,041 registry\n",
    );
  });

  it("says where and how it is mounted and shows the map's progress on stderr", async () => {
    const api = new FakeDaemonApi();
    api.mount = async (_request, { onProgress, onMounted }: MountOptions) => {
      onProgress({ phase: "map", doneBytes: 5e6, totalBytes: 1e7, layersDone: 1, layers: 2 });
      onMounted({ mode: "loop", modeReason: "the kernel zero-fills", files: 1234 });
      return FAKE_SUMMARY;
    };

    const { stderr } = await runCommand(["mount", "image", "/mnt"], { api });

    assert.equal(
      stderr,
      "mapping layers 1/2: 5.00 MB of 10.0 MB  50%\n" +
        "mounted at /mnt: 1,234 files, loop mode (the kernel zero-fills)\n" +
        "ctrl-C unmounts it\n",
    );
  });

  it("draws on one line of a terminal and clears it", async () => {
    const api = new FakeDaemonApi();
    api.mount = async (_request, { onProgress }: MountOptions) => {
      onProgress({ phase: "map", doneBytes: 5e6, totalBytes: 1e7, layersDone: 1, layers: 2 });
      return FAKE_SUMMARY;
    };

    const { stderr } = await runCommand(["mount", "image", "/mnt"], { api, isTty: true });

    assert.match(stderr, /^\rmapping layers 1\/2 {2}\[#+\.+\] {2}5\.00 MB of 10\.0 MB/);
    assert.ok(stderr.endsWith("\r\u001b[K"));
    assert.doesNotMatch(stderr, /\n/);
  });

  it("prints the exact summary with --json", async () => {
    const { stdout } = await runCommand(["mount", "--json", "image", "/mnt"]);

    assert.deepEqual(JSON.parse(stdout), FAKE_SUMMARY);
  });

  it("ends well when interrupted after it was mounted", async () => {
    const controller = new AbortController();
    const api = new FakeDaemonApi();
    api.mount = async (_request, { signal, onMounted }: MountOptions) => {
      onMounted({ mode: "erofs", modeReason: "self-test passed", files: 1 });
      controller.abort();
      assert.equal(signal.aborted, true);
      return FAKE_SUMMARY;
    };

    const { exitCode } = await runCommand(["mount", "image", "/mnt"], {
      api,
      signal: controller.signal,
    });

    assert.equal(exitCode, EXIT.ok);
  });

  it("ends with exit code 130 when interrupted before", async () => {
    const controller = new AbortController();
    const api = new FakeDaemonApi();
    api.mount = async () => {
      controller.abort();
      throw new DaemonError("canceled", "stopped by SIGINT");
    };

    const result = await runCommand(["mount", "image", "/mnt"], {
      api,
      signal: controller.signal,
    });

    assert.deepEqual(result, {
      exitCode: EXIT.interrupted,
      stdout: "",
      stderr: "faasnet: interrupted\n",
    });
  });
});

describe("faasnet umount", () => {
  it("unmounts the absolute folder", async () => {
    const api = new FakeDaemonApi();

    const { exitCode } = await runCommand(["umount", "--state", "/s", "/mnt/"], { api });

    assert.equal(exitCode, EXIT.ok);
    assert.deepEqual(api.calls.at(-1), ["umount", { target: "/mnt", state: "/s" }]);
  });

  it("ends with exit code 3 when nothing of ours is mounted there", async () => {
    const api = new FakeDaemonApi();
    api.umountError = new DaemonError("not-found", "/mnt is not mounted by faasnet");

    const { exitCode, stderr } = await runCommand(["umount", "/mnt"], { api });

    assert.equal(exitCode, EXIT.notFound);
    assert.match(stderr, /^faasnet: \/mnt is not mounted by faasnet\n/);
  });
});

describe("faasnet daemon", () => {
  it("runs with the configuration and its overrides until the signal", async () => {
    const api = new FakeDaemonApi();
    const controller = new AbortController();
    const argv = ["daemon", "--config", "/c.toml", "--state", "/s", "--address", "/a.sock"];

    const running = runCommand(argv, { api, signal: controller.signal });
    controller.abort();

    assert.equal((await running).exitCode, EXIT.ok);
    assert.deepEqual(api.calls, [
      ["loadConfig", { file: "/c.toml", overrides: { state: "/s", address: "/a.sock" } }],
      ["runDaemon", { root: "/var/lib/fake", state: "/s", address: "/a.sock" }],
    ]);
  });
});

describe("faasnet config", () => {
  it("prints the default file", async () => {
    const { stdout } = await runCommand(["config", "default"]);

    assert.equal(stdout, 'root = "/var/lib/fake"\n');
  });

  it("says ok of a good file", async () => {
    assert.equal((await runCommand(["config", "check", "/c.toml"])).stdout, "/c.toml: ok\n");
    assert.equal((await runCommand(["config", "check"])).stdout, "ok\n");
  });

  it("names the mistakes of a bad file with exit code 2", async () => {
    const api = new FakeDaemonApi();
    api.configError = new DaemonError("invalid-argument", "/c.toml: [cache] unknown key quota");

    const { exitCode, stderr } = await runCommand(["config", "check", "/c.toml"], { api });

    assert.equal(exitCode, EXIT.usage);
    assert.equal(stderr, "faasnet: /c.toml: [cache] unknown key quota\n");
  });

  it("ends with exit code 3 when the file is not there", async () => {
    const api = new FakeDaemonApi();
    api.configError = new DaemonError("not-found", "cannot read /c.toml");

    assert.equal(
      (await runCommand(["config", "check", "/c.toml"], { api })).exitCode,
      EXIT.notFound,
    );
  });
});
