/** Docker's config.json and its helpers. */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { systemClock } from "../../../src/base/clock.ts";
import { DaemonError, errorMessage } from "../../../src/base/errors.ts";
import { DockerCredentials } from "../../../src/registry/credentials.ts";
import { normalizeAuthKey, parseDockerConfig } from "../../../src/registry/docker-config.ts";
import { memoryLogger, noAbort } from "../../support/registry/pool.ts";
import type { LogLine } from "../../support/registry/pool.ts";

function basic(text: string): string {
  return Buffer.from(text).toString("base64");
}

function parse(value: unknown): ReturnType<typeof parseDockerConfig> {
  return parseDockerConfig(Buffer.from(JSON.stringify(value)));
}

describe("parseDockerConfig", () => {
  it("reads logins, identity tokens, helpers and the store", () => {
    const config = parse({
      auths: {
        "https://index.docker.io/v1/": { auth: basic("ann:pw:with:colons") },
        "localhost:5000": { username: "bob", password: "pw" },
        "acr.example": { auth: basic("00000000-0000:"), identitytoken: "refresh" },
        "bearer.example": { registrytoken: "direct" },
        "empty.example": {},
      },
      credHelpers: { "gcr.io": "gcloud", "bad.example": "../../bin/sh" },
      credsStore: "desktop",
    });

    assert.deepEqual(Object.fromEntries(config.auths), {
      "docker.io": { kind: "password", username: "ann", password: "pw:with:colons" },
      "localhost:5000": { kind: "password", username: "bob", password: "pw" },
      "acr.example": { kind: "identity", token: "refresh" },
      "bearer.example": { kind: "bearer", token: "direct" },
    });
    assert.deepEqual(Object.fromEntries(config.helpers), { "gcr.io": "gcloud" });
    assert.equal(config.store, "desktop");
  });

  it("knows a host by its bare name, with a scheme, and with a path", () => {
    const keys = ["quay.io", "https://quay.io", "http://quay.io/v2/", "Quay.IO/v1/"];
    assert.deepEqual([...new Set(keys.map((key) => normalizeAuthKey(key)))], ["quay.io"]);
    assert.equal(normalizeAuthKey("registry-1.docker.io"), "docker.io");
  });

  it("refuses what is no config without quoting it", () => {
    for (const text of ['{"auths": s3cret', "[]", "5", "null"]) {
      assert.throws(
        () => parseDockerConfig(Buffer.from(text)),
        (error) => error instanceof DaemonError && !errorMessage(error).includes("s3cret"),
      );
    }
  });

  it("answers any JSON with a config or its error", () => {
    const key = fc.constantFrom("auths", "credHelpers", "credsStore", "auth", "a.io", "__proto__");
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { depthSize: "small" },
        fc.oneof(fc.string(), fc.constant(null), fc.integer(), fc.constant(basic("a:b"))),
        fc.array(tie("tree"), { maxLength: 2 }),
        fc.dictionary(key, tie("tree"), { maxKeys: 4 }),
      ),
    }));
    fc.assert(
      fc.property(tree, (value) => {
        try {
          parse(value);
        } catch (error) {
          assert.ok(error instanceof DaemonError, String(error));
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe("DockerCredentials", () => {
  let folder = "";
  let lines: LogLine[] = [];
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "docker-config-"));
    lines = [];
  });
  afterEach(async () => {
    await rm(folder, { recursive: true });
  });

  function credentials(): DockerCredentials {
    return new DockerCredentials(
      { dockerConfigDir: folder, helperEnvironment: { PATH: `${folder}:/usr/bin:/bin` } },
      { clock: systemClock, log: memoryLogger(lines) },
    );
  }

  async function config(value: unknown): Promise<void> {
    await writeFile(join(folder, "config.json"), JSON.stringify(value));
  }

  async function helper(name: string, script: string): Promise<void> {
    const path = join(folder, `docker-credential-${name}`);
    await writeFile(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }

  const signal = noAbort();

  it("is anonymous without a file, and sees a login made later", async () => {
    const found = credentials();
    assert.equal(await found.lookup("a.io", { signal }), undefined);
    await config({ auths: { "a.io": { auth: basic("ann:pw") } } });
    assert.deepEqual(await found.lookup("a.io", { signal }), {
      kind: "password",
      username: "ann",
      password: "pw",
    });
  });

  it("asks the host's helper, on its standard input", async () => {
    await config({ credHelpers: { "a.io": "test" }, auths: { "a.io": { auth: basic("x:y") } } });
    await helper(
      "test",
      `read host; [ "$1" = get ] && printf '{"Username":"u-%s","Secret":"s"}' "$host"`,
    );
    assert.deepEqual(await credentials().lookup("a.io", { signal }), {
      kind: "password",
      username: "u-a.io",
      password: "s",
    });
  });

  it("asks for Docker Hub by the name docker files it under", async () => {
    await config({ credsStore: "test" });
    await helper("test", `read host; printf '{"Username":"<token>","Secret":"%s"}' "$host"`);
    assert.deepEqual(await credentials().lookup("registry-1.docker.io", { signal }), {
      kind: "identity",
      token: "https://index.docker.io/v1/",
    });
  });

  it("falls back to the file where the helper knows nothing", async () => {
    await config({ credsStore: "test", auths: { "a.io": { auth: basic("ann:pw") } } });
    await helper("test", "echo 'credentials not found in native keychain'; exit 1");
    const found = await credentials().lookup("a.io", { signal });
    assert.equal(found?.kind, "password");
    assert.deepEqual(lines, []);
  });

  for (const [what, script] of [
    ["fails", "echo s3cret; echo s3cret >&2; exit 3"],
    ["talks nonsense", "echo s3cret"],
    ["never ends its output", "yes s3cret"],
    ["ignores its input", 'exec <&-; sleep 0.05; echo \'{"Secret":""}\''],
  ] as const) {
    it(`is anonymous, and says so without the output, when a helper ${what}`, async () => {
      await config({ credsStore: "test" });
      await helper("test", script);
      assert.equal(await credentials().lookup("a.io", { signal }), undefined);
      assert.equal(lines[0]?.event, "credential-helper-failed");
      assert.doesNotMatch(errorMessage(lines[0].fields["err"]), /s3cret/);
    });
  }

  it("is anonymous when a helper is not installed", async () => {
    await config({ credsStore: "missing" });
    assert.equal(await credentials().lookup("a.io", { signal }), undefined);
    assert.match(errorMessage(lines[0]?.fields["err"]), /not installed/);
  });

  it("ends the helper when the caller leaves", async () => {
    await config({ credsStore: "test" });
    await helper("test", "exec sleep 30");
    const controller = new AbortController();
    setTimeout(() => {
      controller.abort();
    }, 50);
    await assert.rejects(
      credentials().lookup("a.io", { signal: controller.signal }),
      (error) => error instanceof DaemonError && error.code === "canceled",
    );
  });

  it("refuses a malformed file, naming it", async () => {
    await writeFile(join(folder, "config.json"), "{s3cret");
    await assert.rejects(credentials().lookup("a.io", { signal }), (error) => {
      const text = errorMessage(error);
      return text.includes("config.json") && !text.includes("s3cret");
    });
  });
});
