/** hosts.toml, the folders it lies in, and what holds where there is none. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { DaemonError, errorMessage } from "../../../src/base/errors.ts";
import { loadHosts } from "../../../src/registry/host-config.ts";
import { parseHostsToml } from "../../../src/registry/hosts-toml.ts";

const BASE = { baseDir: "/certs" };

function refusal(text: string): string {
  try {
    parseHostsToml(text, BASE);
  } catch (error) {
    assert.ok(error instanceof DaemonError && error.code === "failed-precondition", String(error));
    return error.message;
  }
  return assert.fail(`accepted ${text}`);
}

describe("parseHostsToml", () => {
  it("reads containerd's documented example", () => {
    const entries = parseHostsToml(
      `
      server = "https://registry-1.docker.io"
      ca = "/etc/certs/ca.pem"
      [host."https://mirror.example"]
        capabilities = ["pull"]
        ca = ["one.pem", "/two.pem"]
        client = [["c.cert", "c.key"], "both.pem"]
        skip_verify = true
      [host."http://10.0.0.1:5000/v2/proxy"]
        capabilities = ["pull", "Resolve"]
        override_path = true
        dial_timeout = "3s"
        [host."http://10.0.0.1:5000/v2/proxy".header]
          x-custom = ["a", "b"]
          authorization = "Basic c2VjcmV0"
      [host."plain.example"]
      `,
      BASE,
    );

    assert.deepEqual(
      entries.map(({ origin, path }) => `${origin ?? ""}${path}`),
      [
        "https://mirror.example/v2",
        "http://10.0.0.1:5000/v2/proxy",
        "https://plain.example/v2",
        "https://registry-1.docker.io/v2",
      ],
    );
    const [first, second, third, own] = entries;
    assert.deepEqual([...(first?.capabilities ?? [])], ["pull"]);
    assert.deepEqual(first?.caFiles, ["/certs/one.pem", "/two.pem"]);
    assert.deepEqual(first.clientCertificates, [
      { certificate: "/certs/c.cert", key: "/certs/c.key" },
      { certificate: "/certs/both.pem", key: "/certs/both.pem" },
    ]);
    assert.equal(first.skipVerify, true);
    assert.equal(second?.dialTimeoutMs, 3000);
    assert.deepEqual(second.headers, [
      ["x-custom", "a"],
      ["x-custom", "b"],
      ["authorization", "Basic c2VjcmV0"],
    ]);
    assert.equal(third?.capabilities.size, 4);
    assert.deepEqual(own?.caFiles, ["/etc/certs/ca.pem"]);
  });

  it("leaves the address open where no server is named", () => {
    const [only, ...others] = parseHostsToml("skip_verify = true", BASE);
    assert.equal(only?.origin, undefined);
    assert.equal(only?.skipVerify, true);
    assert.deepEqual(others, []);
  });

  it("adds /v2 unless it is there or overridden", () => {
    const paths = (text: string): readonly string[] =>
      parseHostsToml(text, BASE).map(({ path }) => path);
    assert.deepEqual(paths('server = "https://a/prefix/"'), ["/prefix/v2"]);
    assert.deepEqual(paths('server = "https://a/prefix/v2"'), ["/prefix/v2"]);
    assert.deepEqual(paths('server = "https://a/p"\noverride_path = true'), ["/p"]);
    assert.deepEqual(paths('server = "https://a"\noverride_path = true'), [""]);
  });

  const malformed: readonly string[] = [
    "server = ",
    "server = 5",
    'server = "https://user:pw@host"',
    'server = "https://host/?a=b"',
    'server = "https://"',
    "host = 1",
    '[host."a"]\ncapabilities = ["fly"]',
    "ca = 5",
    'client = [["a", "b", "c"]]',
    'dial_timeout = "soon"',
    'skip_verify = "yes"',
    '[header]\n"x y" = "z"',
    '[header]\nx = "a\\r\\nb: c"',
    'ca = "a\\u0000b"',
  ];
  for (const text of malformed) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      assert.notEqual(refusal(text), "");
    });
  }

  it("does not quote a header's value or the file", () => {
    assert.doesNotMatch(refusal('[header]\nauthorization = "s3cret\\n"'), /s3cret/);
    assert.doesNotMatch(refusal('[header]\nauthorization = "s3cret'), /s3cret/);
    assert.doesNotMatch(refusal('server = "https://ann:s3cret@host"'), /s3cret/);
  });

  it("answers any text with hosts or its error", () => {
    const line = fc.constantFrom(
      'server = "https://a.example"',
      '[host."b.example"]',
      'capabilities = ["pull"]',
      "skip_verify = true",
      'ca = ["x"]',
      "client = [[]]",
      "[header]",
      'x = "y"',
      "[[host]]",
      "host.a = 1",
      "[host]",
      "__proto__ = 1",
      "override_path = 2024-01-01",
      '"',
    );
    fc.assert(
      fc.property(fc.array(fc.oneof(line, fc.string()), { maxLength: 8 }), (lines) => {
        try {
          assert.ok(parseHostsToml(lines.join("\n"), BASE).length >= 1);
        } catch (error) {
          assert.ok(error instanceof DaemonError, String(error));
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("loadHosts", () => {
  let root = "";
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "hosts-"));
  });
  afterEach(async () => {
    await rm(root, { recursive: true });
  });

  async function put(path: string, text: string): Promise<void> {
    await mkdir(join(root, path, ".."), { recursive: true });
    await writeFile(join(root, path), text);
  }

  const defaults: readonly (readonly [string, readonly string[]])[] = [
    ["docker.io", ["https://registry-1.docker.io"]],
    ["quay.io", ["https://quay.io"]],
    ["registry:5000", ["https://registry:5000"]],
    ["localhost", ["http://localhost", "https://localhost"]],
    ["localhost:5000", ["http://localhost:5000", "https://localhost:5000"]],
    ["127.8.9.1:5000", ["http://127.8.9.1:5000", "https://127.8.9.1:5000"]],
    ["[::1]:5000", ["http://[::1]:5000", "https://[::1]:5000"]],
    ["localhost:443", ["https://localhost:443"]],
    ["localhost:80", ["http://localhost:80"]],
    ["128.0.0.1:5000", ["https://128.0.0.1:5000"]],
  ];
  for (const [domain, origins] of defaults) {
    it(`reaches ${domain} at ${origins.join(" or ")} without configuration`, async () => {
      const hosts = await loadHosts(domain, { hostsDirs: [root, join(root, "missing")] });
      assert.deepEqual(
        hosts.map((host) => host.origins),
        [origins],
      );
      assert.equal(hosts[0]?.isMirror, false);
    });
  }

  it("prefers host_port_ to host:port to _default, in the first folder that has any", async () => {
    const second = join(root, "second");
    await put("second/a.example:5000/hosts.toml", 'server = "https://second"');
    await put("_default/hosts.toml", 'server = "https://default"');
    const origins = async (): Promise<unknown> =>
      (await loadHosts("a.example:5000", { hostsDirs: [root, second] })).map(
        (host) => host.origins[0],
      );

    assert.deepEqual(await origins(), ["https://default"]);
    await put("a.example:5000/hosts.toml", 'server = "https://colon"');
    assert.deepEqual(await origins(), ["https://colon"]);
    await put("a.example_5000_/hosts.toml", 'server = "https://underscore"');
    assert.deepEqual(await origins(), ["https://underscore"]);
  });

  it("marks mirrors, and Docker Hub's own host as none", async () => {
    await put(
      "docker.io/hosts.toml",
      'server = "https://registry-1.docker.io"\n[host."https://m.example"]\ncapabilities=["pull"]',
    );
    const hosts = await loadHosts("docker.io", { hostsDirs: [root] });
    assert.deepEqual(
      hosts.map(({ isMirror, canPull, canResolve }) => [isMirror, canPull, canResolve]),
      [
        [true, true, false],
        [false, true, true],
      ],
    );
  });

  it("reads certificates in docker's layout where there is no hosts.toml", async () => {
    await put("r.example/ca.crt", "CA");
    await put("r.example/me.cert", "CERT");
    await put("r.example/me.key", "KEY");
    const [host] = await loadHosts("r.example", { hostsDirs: [root] });
    assert.deepEqual(host?.tls, {
      ca: ["CA"],
      clients: [{ certificate: "CERT", key: "KEY" }],
      skipVerify: false,
    });
  });

  it("speaks only TLS to loopback where certificates are configured", async () => {
    await put("localhost_5000_/hosts.toml", 'ca = "ca.pem"');
    await put("localhost_5000_/ca.pem", "CA");
    const [host] = await loadHosts("localhost:5000", { hostsDirs: [root] });
    assert.deepEqual(host?.origins, ["https://localhost:5000"]);
    assert.equal(host.tls.skipVerify, false);
  });

  it("names the file that is malformed or missing", async () => {
    await put("r.example/hosts.toml", "server = 5");
    await assert.rejects(loadHosts("r.example", { hostsDirs: [root] }), (error) =>
      errorMessage(error).includes(join(root, "r.example/hosts.toml")),
    );
    await put("r.example/hosts.toml", 'ca = "gone.pem"');
    await assert.rejects(loadHosts("r.example", { hostsDirs: [root] }), (error) =>
      errorMessage(error).includes("gone.pem"),
    );
  });
});
