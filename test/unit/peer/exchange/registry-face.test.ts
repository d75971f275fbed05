import assert from "node:assert/strict";
import { request } from "node:http";
import { createHash } from "node:crypto";
import { digestOf } from "../../../../src/oci/index.ts";
import type { DocumentProvider, Repository } from "../../../../src/peer/exchange/index.ts";
import { parseRange, parseRegistryTarget } from "../../../../src/peer/exchange/registry-face.ts";
import { SimNode } from "./sim-node.ts";

const BLOB = Buffer.alloc(300_000, "layer");
const DIGEST = digestOf(BLOB);
const MANIFEST = Buffer.from(`{"schemaVersion":2}`);
const MANIFEST_DIGEST = digestOf(MANIFEST);
const MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json";

class Documents implements DocumentProvider {
  readonly asked: [Repository, string][] = [];

  async manifest(repository: Repository, reference: string) {
    this.asked.push([repository, reference]);
    if (repository.name !== "library/app") return undefined;
    if (reference !== "latest" && reference !== MANIFEST_DIGEST) return undefined;
    return { bytes: MANIFEST, mediaType: MEDIA_TYPE, digest: MANIFEST_DIGEST };
  }

  async blob(_repository: Repository, digest: string) {
    if (digest !== DIGEST) return undefined;
    return {
      size: BLOB.length,
      async *read({ start, end }: { start: number; end: number }) {
        for (let at = start; at < end; at += 10_000) {
          yield BLOB.subarray(at, Math.min(end, at + 10_000));
        }
      },
    };
  }
}

describe("/v2/", () => {
  const documents = new Documents();
  let node: SimNode;
  let port = 0;
  before(async () => {
    node = new SimNode("n0", { documents });
    ({ port } = await node.server.listenClear({ host: "127.0.0.1", port: 0 }));
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
  });

  async function ask(
    path: string,
    options: { method?: string; range?: string; host?: string } = {},
  ) {
    return new Promise<{ status: number; headers: Record<string, unknown>; body: Buffer }>(
      (resolve, reject) => {
        const headers = {
          ...(options.range === undefined ? {} : { range: options.range }),
          ...(options.host === undefined ? {} : { host: options.host }),
        };
        const outgoing = request(
          { host: "127.0.0.1", port, path, method: options.method ?? "GET", headers, agent: false },
          (response) => {
            const pieces: Buffer[] = [];
            response.on("data", (piece: Buffer) => pieces.push(piece));
            response.on("close", () => {
              const body = Buffer.concat(pieces);
              resolve({ status: response.statusCode ?? 0, headers: response.headers, body });
            });
          },
        );
        outgoing.on("error", reject);
        outgoing.end();
      },
    );
  }

  it("says that it is a registry", async () => {
    const { status, headers } = await ask("/v2/");
    assert.equal(status, 200);
    assert.equal(headers["docker-distribution-api-version"], "registry/2.0");
  });

  it("gives manifests by tag and digest, with the registry that was asked for", async () => {
    for (const reference of ["latest", MANIFEST_DIGEST]) {
      const path = `/v2/library/app/manifests/${reference}?ns=docker.io`;
      const { status, headers, body } = await ask(path);
      assert.equal(status, 200);
      assert.equal(headers["content-type"], MEDIA_TYPE);
      assert.equal(headers["docker-content-digest"], MANIFEST_DIGEST);
      assert.ok(body.equals(MANIFEST));
      const head = await ask(path, { method: "HEAD" });
      assert.deepEqual(
        [head.status, head.headers["content-length"], head.body.length],
        [200, String(MANIFEST.length), 0],
      );
    }
    assert.deepEqual(documents.asked[0], [
      { registry: "docker.io", name: "library/app" },
      "latest",
    ]);
  });

  it("gives blobs, whole and in ranges", async () => {
    const path = `/v2/library/app/blobs/${DIGEST}`;
    const whole = await ask(path);
    assert.equal(createHash("sha256").update(whole.body).digest("hex"), DIGEST.slice(7));
    const part = await ask(path, { range: "bytes=1000-29999" });
    assert.equal(part.status, 206);
    assert.equal(part.headers["content-range"], "bytes 1000-29999/300000");
    assert.ok(part.body.equals(BLOB.subarray(1000, 30_000)));
    assert.ok((await ask(path, { range: "bytes=-10" })).body.equals(BLOB.subarray(-10)));
    assert.ok((await ask(path, { range: "bytes=299990-" })).body.equals(BLOB.subarray(299_990)));
    const beyond = await ask(path, { range: "bytes=300000-" });
    assert.equal(beyond.status, 416);
    assert.equal(beyond.headers["content-range"], "bytes */300000");
    const head = await ask(path, { method: "HEAD" });
    assert.deepEqual([head.status, head.headers["content-length"]], [200, "300000"]);
  });

  it("says in the registry's way what it has not got", async () => {
    for (const path of [
      "/v2/library/app/manifests/v2",
      "/v2/library/other/manifests/latest",
      `/v2/library/app/blobs/sha256:${"0".repeat(64)}`,
      "/v2/library/app/tags/list",
      "/v2/_catalog",
      "/v2/../etc/passwd",
      "/v2/App/manifests/latest",
    ]) {
      const { status, body } = await ask(path);
      assert.equal(status, 404, path);
      const { errors } = JSON.parse(body.toString()) as { errors: { code: string }[] };
      assert.equal(errors[0]?.code, "MANIFEST_UNKNOWN");
    }
    assert.equal((await ask("/v2/library/app/manifests/latest", { method: "PUT" })).status, 405);
  });

  it("gives nothing of the members' to whoever has no certificate", async () => {
    assert.equal((await ask("/faasnet/1/probe")).status, 403);
  });

  it("answers without TLS only who asks for loopback by name: no page of another site", async () => {
    const at = "/v2/library/app/manifests/latest";
    for (const host of ["127.0.0.1", "127.1.2.3:80", "[::1]:5000", "localhost", "LOCALHOST:1"]) {
      assert.equal((await ask(at, { host })).status, 200, host);
    }
    const others = ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:5000"];
    for (const host of [...others, "10.0.0.1", "[::1].evil.example", "a@localhost", "::1"]) {
      assert.equal((await ask(at, { host })).status, 403, host);
    }
  });

  it("listens without TLS on loopback only", async () => {
    await assert.rejects(node.server.listenClear({ host: "0.0.0.0", port: 0 }), {
      code: "invalid-argument",
    });
  });
});

describe("a range header", () => {
  it("is read as RFC 9110 says", () => {
    assert.equal(parseRange(undefined, 10), undefined);
    assert.deepEqual(parseRange("bytes=0-4", 10), { start: 0, end: 5 });
    assert.deepEqual(parseRange("bytes=5-99", 10), { start: 5, end: 10 });
    assert.deepEqual(parseRange("bytes=-3", 10), { start: 7, end: 10 });
    assert.deepEqual(parseRange("bytes=-30", 10), { start: 0, end: 10 });
    for (const header of ["bytes=5-2", "bytes=1-2,4-5", "lines=1-2", "bytes=-", "bytes=a-b"]) {
      assert.equal(parseRange(header, 10), undefined, header);
    }
    for (const header of ["bytes=10-", "bytes=-0", "bytes=99-100"]) {
      assert.throws(() => parseRange(header, 10), { code: "out-of-range" });
    }
  });
});

describe("a target below /v2/", () => {
  it("is a repository and what is wanted of it", () => {
    assert.deepEqual(parseRegistryTarget("/v2/"), { kind: "base" });
    assert.deepEqual(parseRegistryTarget("/v2/a/blobs/b/manifests/v1.0"), {
      kind: "manifest",
      repository: { registry: undefined, name: "a/blobs/b" },
      reference: "v1.0",
    });
    for (const target of ["/v2/a/manifests/", "/v2/a/manifests/.x", "/v2/a//b/manifests/x"]) {
      assert.throws(() => parseRegistryTarget(target), { code: "not-found" });
    }
  });
});
