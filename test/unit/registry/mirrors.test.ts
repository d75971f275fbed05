/** Several hosts behind one name, as hosts.toml arranges them. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DaemonError, errorMessage } from "../../../src/base/errors.ts";
import { parsePlatform, parseReference } from "../../../src/oci/index.ts";
import { fakeBytes, fakeImage } from "../../support/registry/fake-image.ts";
import { FakeRegistry } from "../../support/registry/fake-registry.ts";
import { collect, noAbort, testPool } from "../../support/registry/pool.ts";
import type { TestPool } from "../../support/registry/pool.ts";

const DOMAIN = "registry.example";
const BYTES = fakeBytes(200_000);

describe("RegistryClient with mirrors", () => {
  let root = "";
  let mirror: FakeRegistry;
  let own: FakeRegistry;
  let test: TestPool;

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "mirrors-"));
    mirror = await FakeRegistry.start();
    own = await FakeRegistry.start();
    test = testPool({ hostsDirs: [root] });
    await hosts(`server = "${own.origin}"\n[host."${mirror.origin}"]\n`);
  });
  afterEach(async () => {
    await test[Symbol.asyncDispose]();
    await mirror[Symbol.asyncDispose]();
    await own[Symbol.asyncDispose]();
    await rm(root, { recursive: true });
  });

  async function hosts(text: string): Promise<void> {
    await mkdir(join(root, DOMAIN), { recursive: true });
    await writeFile(join(root, DOMAIN, "hosts.toml"), text);
  }

  async function read(digest = mirror.addBlob(BYTES)): Promise<Buffer> {
    const client = test.pool.client(DOMAIN);
    return collect(
      await client.openBlob("app", digest, undefined, { signal: noAbort(), size: BYTES.length }),
    );
  }

  it("asks the mirror first, telling it the registry's name", async () => {
    const image = fakeImage({ layers: [] });
    mirror.addImage("app", "x", image);

    await test.pool.client(DOMAIN).resolve(parseReference(`${DOMAIN}/app:x`), {
      platform: parsePlatform("amd64"),
      signal: noAbort(),
    });

    assert.deepEqual(own.requests, []);
    assert.equal(mirror.requests[0], `GET /v2/app/manifests/x?ns=${DOMAIN}`);
  });

  it("goes on to the registry when the mirror lacks it", async () => {
    await read(own.addBlob(BYTES));

    assert.equal(mirror.log.length, 1);
    assert.equal(own.log.length, 1);
  });

  for (const status of [401, 403, 500, 429]) {
    it(`goes on to the registry at once when the mirror answers ${status}`, async () => {
      mirror.fail(/blobs/, { kind: "status", status }, 9);

      await read(own.addBlob(BYTES));

      assert.deepEqual(test.clock.sleeps, []);
    });
  }

  it("asks a mirror that broke last for a while", async () => {
    const digest = own.addBlob(BYTES);
    mirror.addBlob(BYTES);
    mirror.fail(/blobs/, { kind: "reset" }, 1);

    await read(digest);
    await read(digest);
    const during = mirror.log.length;
    test.clock.advance(60_000);
    await read(digest);

    assert.equal(during, 1);
    assert.equal(mirror.log.length, 2);
  });

  it("goes on at the registry in the middle of a blob", async () => {
    const digest = own.addBlob(BYTES);
    mirror.addBlob(BYTES);
    mirror.fail(/blobs/, { kind: "cut", afterBytes: 100_000 });

    const bytes = await read(digest);

    assert.ok(bytes.equals(BYTES));
    assert.equal(own.log[0]?.range, "bytes=100000-");
  });

  it("does not resolve tags at a mirror that may only be pulled from", async () => {
    await hosts(`server = "${own.origin}"\n[host."${mirror.origin}"]\ncapabilities = ["pull"]\n`);
    own.addImage("app", "x", fakeImage({ layers: [] }));

    await test.pool.client(DOMAIN).resolve(parseReference(`${DOMAIN}/app:x`), {
      platform: parsePlatform("amd64"),
      signal: noAbort(),
    });

    assert.deepEqual(
      mirror.requests.filter((line) => line.includes("manifests/x")),
      [],
    );
    assert.equal(mirror.log.length, 1, "its config was asked for");
  });

  it("asks a mirror that served wrong bytes last", async () => {
    const digest = own.addBlob(BYTES);
    mirror.putBlob(digest, fakeBytes(BYTES.length, "other"));

    await assert.rejects(
      read(digest),
      (error) => error instanceof DaemonError && error.code === "data-loss",
    );
    const bytes = await read(digest);

    assert.ok(bytes.equals(BYTES));
    assert.ok(test.lines.some(({ event }) => event === "registry-blob-corrupt"));
  });

  it("says what the registry itself said, when both lack it", async () => {
    const { digest } = { digest: fakeImage({ layers: [] }).configDigest };

    await assert.rejects(read(digest), (error) => {
      assert.ok(error instanceof DaemonError && error.code === "not-found");
      return errorMessage(error).includes(own.origin);
    });
  });

  it("tries again while only the registry is away", async () => {
    const digest = own.addBlob(BYTES);
    own.fail(/blobs/, { kind: "status", status: 502 }, 2);

    await read(digest);

    assert.equal(mirror.log.length, 1, "a mirror that has not got it is not asked again");
    assert.equal(test.clock.sleeps.length, 2);
  });

  it("sends configured headers to their host only", async () => {
    await hosts(
      `server = "${own.origin}"\n[host."${mirror.origin}"]\n` +
        `[host."${mirror.origin}".header]\nx-key = "s3cret"\n`,
    );
    const digest = mirror.addBlob(BYTES);
    own.addBlob(BYTES);
    mirror.fail(/blobs/, { kind: "redirect", location: `${own.origin}/v2/app/blobs/${digest}` });

    await read(digest);

    assert.equal(mirror.log[0]?.headers["x-key"], "s3cret");
    assert.equal(own.log[0]?.headers["x-key"], undefined);
  });

  it("uses a path before /v2 as configured", async () => {
    await using prefixed = await FakeRegistry.start({ prefix: "/proxy" });
    await hosts(`server = "${prefixed.origin}/proxy"`);

    await read(prefixed.addBlob(BYTES));

    assert.match(prefixed.requests[0] ?? "", /^GET \/proxy\/v2\/app\/blobs\//);
  });

  it("sees a changed file after a while, and survives a broken one", async () => {
    const digest = own.addBlob(BYTES);
    mirror.addBlob(BYTES);
    await read(digest);
    await hosts(`server = "${own.origin}"`);
    test.clock.advance(31_000);
    await read(digest);
    assert.equal(mirror.log.length, 1);

    await hosts("server = ");
    test.clock.advance(31_000);
    await read(digest);

    assert.ok(test.lines.some(({ event }) => event === "registry-hosts-not-reloaded"));
  });

  it("names the file when it is broken from the start", async () => {
    await hosts("server = ");

    await assert.rejects(read(), (error) => errorMessage(error).includes("hosts.toml"));
  });
});
