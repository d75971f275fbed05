/** Where an image may come from: the registry's port, which containerd's labels lose. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { claimedName, requestNamespace } from "../../../src/snapshotter/claimed-name.ts";
import {
  distributionSources,
  sourceCandidates,
} from "../../../src/snapshotter/source-candidates.ts";
import { digestOf, parseChainId } from "../../../src/oci/index.ts";

const NOTHING = { imageNames: [], configured: [], certsFolders: [] };
const PREFIX = "containerd.io/distribution.source.";

describe("distributionSources", () => {
  it("reads hosts and repositories, and leaves malformed ones out", () => {
    const labels = new Map([
      [`${PREFIX}docker.io`, "library/debian,library/debian-slim"],
      [`${PREFIX}localhost`, "x,../../etc,,UPPER"],
      [PREFIX, "x"],
      ["containerd.io/other", "x"],
    ]);
    assert.deepEqual(distributionSources(labels), [
      { hostname: "docker.io", repository: "library/debian" },
      { hostname: "docker.io", repository: "library/debian-slim" },
      { hostname: "localhost", repository: "x" },
    ]);
  });
});

describe("sourceCandidates", () => {
  const local = [{ hostname: "localhost", repository: "app" }];

  it("uses the bare host where nothing says more", () => {
    assert.deepEqual(sourceCandidates(local, NOTHING), ["localhost/app"]);
  });

  it("prefers image records of the same repository, then configuration, then certs.d", () => {
    const known = {
      imageNames: ["localhost:5003/other:1", "localhost:5000/app:1", "not a reference", "x/app"],
      configured: ["localhost:5001", "elsewhere:5001", "localhost"],
      certsFolders: ["localhost_5002_", "localhost:5004", "_default", "localhost"],
    };
    assert.deepEqual(sourceCandidates(local, known), [
      "localhost:5000/app",
      "localhost:5001/app",
      "localhost:5002/app",
      "localhost:5004/app",
      "localhost/app",
    ]);
  });

  it("puts an address of IPv6 in brackets", () => {
    const sources = [{ hostname: "::1", repository: "app" }];
    assert.deepEqual(sourceCandidates(sources, { ...NOTHING, certsFolders: ["[::1]:5000"] }), [
      "[::1]:5000/app",
      "[::1]/app",
    ]);
  });

  it("gives no more candidates than its limit", () => {
    const configured = Array.from({ length: 50 }, (_, port) => `localhost:${5000 + port}`);
    assert.equal(sourceCandidates(local, { ...NOTHING, configured }).length, 16);
  });
});

describe("claimedName", () => {
  const chain = fc.string().map((text) => parseChainId(digestOf(Buffer.from(text))));

  it("is unique for each pair of parent and chain", () => {
    fc.assert(
      fc.property(chain, chain, fc.string(), fc.string(), (one, two, parentOne, parentTwo) => {
        const isSame = one === two && parentOne === parentTwo;
        assert.equal(claimedName(one, parentOne) === claimedName(two, parentTwo), isSame);
      }),
    );
  });
});

describe("requestNamespace", () => {
  it("is the header's, else that in containerd's key, else unknown", () => {
    assert.equal(requestNamespace("k8s.io", "default/1/x"), "k8s.io");
    assert.equal(requestNamespace("", "default/1/extract-1-x sha256:a"), "default");
    assert.equal(requestNamespace("", "k8s.io/57/a/b"), "k8s.io");
    for (const key of ["x", "a/b/c", "/1/x", "../1/x", "a b/1/x"]) {
      assert.equal(requestNamespace("", key), "");
    }
  });
});
