/** Against Debian's docker-registry, filled by skopeo from a layout that umoci made. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { DaemonError, errorMessage } from "../../../src/base/errors.ts";
import { linuxPlatformOf } from "../../../src/oci/index.ts";
import { openImageSource } from "../../../src/registry/index.ts";
import type { ImageSource, RegistryOptions, ResolvedImage } from "../../../src/registry/index.ts";
import { makeCertificates } from "../../support/registry/certificates.ts";
import type { TestCertificates } from "../../support/registry/certificates.ts";
import { DockerRegistry } from "../../support/registry/docker-registry.ts";
import { fakeBytes } from "../../support/registry/fake-image.ts";
import { collect, noAbort, testPool } from "../../support/registry/pool.ts";

const exec = promisify(execFile);
const PLATFORM = linuxPlatformOf(process.arch);
const USER = "ann";
const PASSWORD = "pw-s3cret";
/** bcrypt of PASSWORD. */
const HTPASSWD = `${USER}:$2b$05$KJ9sUZ0j2kNRed9p6Qlge.bt4U5ht82kHUMawKc3mJxuBwe59l33S\n`;

async function missingTool(): Promise<string | undefined> {
  for (const tool of ["docker-registry", "skopeo", "umoci", "openssl"]) {
    try {
      await exec(tool, ["--version"]).catch(async () => exec(tool, ["version"]));
    } catch {
      return tool;
    }
  }
  return undefined;
}

/** An image of two gzip layers. */
async function makeLayout(folder: string): Promise<string> {
  const layout = join(folder, "layout");
  const image = `${layout}:v1`;
  await writeFile(join(folder, "one"), fakeBytes(3_000_000, "one"));
  await writeFile(join(folder, "two"), "two\n");
  await exec("umoci", ["init", "--layout", layout]);
  await exec("umoci", ["new", "--image", image]);
  await exec("umoci", ["insert", "--image", image, join(folder, "one"), "/one"]);
  await exec("umoci", ["insert", "--image", image, join(folder, "two"), "/two"]);
  return layout;
}

async function resolve(source: ImageSource): Promise<ResolvedImage> {
  return source.resolve({ platform: PLATFORM, signal: noAbort() });
}

/** Reads every layer whole and in parts, and compares with another source of the same image. */
async function checkSame(source: ImageSource, oracle: ImageSource): Promise<void> {
  const found = await resolve(source);
  const expected = await resolve(oracle);
  assert.equal(found.manifestDigest, expected.manifestDigest);
  assert.equal(found.plan.layers.length, 2);
  for (const { descriptor } of found.plan.layers) {
    const { digest, size } = descriptor;
    const options = { signal: noAbort(), size };
    const all = await collect(await source.open(digest, undefined, options));
    assert.ok(all.equals(await collect(await oracle.open(digest, undefined, options))));
    const middle = { start: Math.floor(size / 3), end: Math.floor(size / 2) };
    const part = await collect(await source.open(digest, middle, options));
    assert.ok(part.equals(all.subarray(middle.start, middle.end)));
  }
}

describe("registry client and docker-registry", () => {
  let root = "";
  let layout = "";
  let certificates: TestCertificates;

  before(async function () {
    this.timeout(60_000);
    const missing = await missingTool();
    if (missing !== undefined) {
      console.warn(`skipped: ${missing} is not installed`);
      this.skip();
    }
    root = await mkdtemp(join(tmpdir(), "registry-"));
    layout = await makeLayout(root);
    certificates = await makeCertificates(root);
  });
  after(async () => {
    if (root !== "") await rm(root, { recursive: true, force: true });
  });

  async function push(registry: DockerRegistry, options: readonly string[]): Promise<void> {
    const target = `docker://${registry.domain}/some/app:v1`;
    await exec("skopeo", ["copy", "--insecure-policy", ...options, `oci:${layout}:v1`, target]);
  }

  async function check(
    registry: DockerRegistry,
    options: Partial<RegistryOptions>,
    domain = registry.domain,
  ): Promise<void> {
    await using test = testPool(options);
    const deps = { registries: test.pool };
    const source = await openImageSource(`${domain}/some/app:v1`, deps, { baseDir: root });
    const oracle = await openImageSource(`oci:${layout}:v1`, deps, { baseDir: root });
    await checkSame(source, oracle);
  }

  async function hostsDir(name: string, domain: string, text: string): Promise<string> {
    const folder = join(root, name);
    await mkdir(join(folder, domain), { recursive: true });
    await writeFile(join(folder, domain, "hosts.toml"), text);
    return folder;
  }

  it("reads an image over plain HTTP on loopback", async () => {
    await using registry = await DockerRegistry.start({ folder: root });
    await push(registry, ["--dest-tls-verify=false"]);

    await check(registry, {});
    await check(registry, {}, `localhost:${registry.port}`);
  });

  it("reads an image over TLS with an own CA named in hosts.toml", async () => {
    await using registry = await DockerRegistry.start({ folder: root, tls: certificates.server });
    await push(registry, ["--dest-tls-verify=false"]);
    const server = `server = "https://${registry.domain}"`;

    const trusted = await hostsDir(
      "trusted",
      registry.domain,
      `${server}\nca = "${certificates.ca}"\n`,
    );
    await check(registry, { hostsDirs: [trusted] });

    const unverified = await hostsDir("skip", registry.domain, `${server}\nskip_verify = true\n`);
    await check(registry, { hostsDirs: [unverified] });

    const plain = await hostsDir("plain", registry.domain, server);
    await check(registry, { hostsDirs: [plain], systemCaFile: certificates.ca });
    await assert.rejects(check(registry, { hostsDirs: [plain] }), (error) => {
      assert.ok(error instanceof DaemonError && error.code === "failed-precondition");
      return /certificate .* not trusted/.test(errorMessage(error));
    });

    const mirror = await hostsDir(
      "mirror",
      "registry.example",
      `[host."https://${registry.domain}"]\nca = "${certificates.ca}"\n`,
    );
    await check(registry, { hostsDirs: [mirror] }, "registry.example");
  });

  it("finds out that a loopback registry speaks TLS", async () => {
    await using registry = await DockerRegistry.start({ folder: root, tls: certificates.server });
    await push(registry, ["--dest-tls-verify=false"]);

    await check(registry, {});
  });

  it("logs in with htpasswd's user from docker's config.json", async () => {
    const htpasswd = join(root, "htpasswd");
    await writeFile(htpasswd, HTPASSWD);
    await using registry = await DockerRegistry.start({ folder: root, htpasswd });
    await push(registry, ["--dest-tls-verify=false", "--dest-creds", `${USER}:${PASSWORD}`]);
    const auth = Buffer.from(`${USER}:${PASSWORD}`).toString("base64");
    await writeFile(
      join(root, "config.json"),
      JSON.stringify({ auths: { [registry.domain]: { auth } } }),
    );

    await check(registry, { dockerConfigDir: root });
    await assert.rejects(check(registry, {}), (error) => {
      assert.ok(error instanceof DaemonError && error.code === "unauthenticated");
      return errorMessage(error).includes("UNAUTHORIZED");
    });
  });

  it("reads the archives that skopeo writes", async () => {
    const source = `oci:${layout}:v1`;
    const oci = join(root, "oci.tar");
    const docker = join(root, "docker.tar");
    const copy = ["copy", "--insecure-policy", source];
    await exec("skopeo", [...copy, `oci-archive:${oci}:v1`]);
    await exec("skopeo", [...copy, `docker-archive:${docker}:app:v1`]);
    await using test = testPool();
    const open = async (text: string): Promise<ImageSource> =>
      openImageSource(text, { registries: test.pool }, { baseDir: root });

    await checkSame(await open(`oci-archive:${oci}:v1`), await open(source));
    const saved = await resolve(await open(`docker-archive:${docker}:app:v1`));
    const original = await resolve(await open(source));

    assert.deepEqual(saved.config.diffIds, original.config.diffIds);
    for (const { descriptor } of saved.plan.layers) {
      const reader = await open(`docker-archive:${docker}`);
      const options = { signal: noAbort(), size: descriptor.size };
      await collect(await reader.open(descriptor.digest, undefined, options));
    }
    assert.ok((await readFile(docker)).length > 3_000_000);
  });
});
