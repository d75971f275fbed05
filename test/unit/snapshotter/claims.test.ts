/** Whether a layer is claimed, and from which image. */
import assert from "node:assert/strict";
import { DaemonError } from "../../../src/base/errors.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { digestOf, parseChainId } from "../../../src/oci/index.ts";
import type { ChainId } from "../../../src/oci/index.ts";
import { ChainResolver } from "../../../src/snapshotter/chain-resolver.ts";
import { Claims } from "../../../src/snapshotter/claims.ts";
import type { ClaimDecision, ClaimRequest } from "../../../src/snapshotter/claims.ts";
import {
  LABEL_IMAGE_REF,
  LABEL_MANIFEST_DIGEST,
  LABEL_SNAPSHOT_REF,
} from "../../../src/snapshotter/labels.ts";
import { FakeClock } from "../../support/snapshotter/fake-clock.ts";
import { FakeContainerd } from "../../support/snapshotter/fake-containerd.ts";
import { FakeProvider, provided } from "../../support/snapshotter/fake-provider.ts";

const NEVER = new AbortController().signal;
const SOURCE = new Map([["containerd.io/distribution.source.reg.example", "app"]]);

interface Bench {
  readonly provider: FakeProvider;
  readonly containerd: FakeContainerd;
  readonly clock: FakeClock;
  readonly claims: Claims;
  readonly decide: (chainId: ChainId, more?: Partial<ClaimRequest>) => Promise<ClaimDecision>;
}

function bench(withContainerd = true): Bench {
  const provider = new FakeProvider();
  const containerd = new FakeContainerd();
  const clock = new FakeClock();
  const resolver = new ChainResolver({
    containerd,
    log: silentLogger,
    configuredHosts: ["reg.example:5000"],
    certsFolders: ["/nonexistent"],
  });
  const claims = new Claims({
    provider,
    resolver: withContainerd ? resolver : undefined,
    clock,
    log: silentLogger,
    ensureWaitMs: 1000,
  });
  const decide: Bench["decide"] = (chainId, more = {}) =>
    claims.decide(
      {
        chainId,
        namespace: "default",
        labels: new Map([[LABEL_SNAPSHOT_REF, chainId]]),
        isAboveLocal: false,
        ...more,
      },
      { signal: NEVER },
    );
  return { provider, containerd, clock, claims, decide };
}

function reasonOf(decision: ClaimDecision): string {
  return decision.claimed ? `claimed by ${decision.by}` : decision.reason;
}

describe("claims", () => {
  it("takes a chain that is known already, and asks nobody else", async () => {
    const { provider, containerd, decide } = bench();
    const { chains } = containerd.add({ seeds: ["a", "b"], labels: SOURCE });
    const [base, top] = chains;
    assert.ok(base !== undefined && top !== undefined);
    provider.known.set(top, "/x");
    assert.equal(reasonOf(await decide(top)), "claimed by known-chain");
    assert.deepEqual([...containerd.counts.keys()], []);
    assert.equal(provider.of("ensure").length, 0);
  });

  it("ensures the image that the cri labels name, with containerd's copy of its documents", async () => {
    const { provider, containerd, decide } = bench();
    const { chains, manifest } = containerd.add({ seeds: ["a"], labels: SOURCE });
    const [chain] = chains;
    assert.ok(chain !== undefined);
    provider.onEnsure = () => Promise.resolve(chains.map(provided));
    const labels = new Map([
      [LABEL_IMAGE_REF, "reg.example:5000/app:1"],
      [LABEL_MANIFEST_DIGEST, manifest],
    ]);
    assert.equal(reasonOf(await decide(chain, { labels })), "claimed by cri-labels");
    const image = provider.of("ensure")[0]?.image;
    assert.equal(image?.reference, "reg.example:5000/app:1");
    assert.equal(image.manifestDigest, manifest);
    assert.ok(image.manifest !== undefined && image.config !== undefined);
    assert.equal(containerd.counts.get("manifests"), undefined);
  });

  it("works by cri labels without containerd, and with one that fails", async () => {
    for (const withContainerd of [false, true]) {
      const { provider, containerd, decide } = bench(withContainerd);
      containerd.failure = new DaemonError("unavailable", "away");
      const chain = parseChainId(digestOf(Buffer.from("x")));
      provider.onEnsure = () => Promise.resolve([provided(chain)]);
      const labels = new Map([
        [LABEL_IMAGE_REF, "reg.example/app:1"],
        [LABEL_MANIFEST_DIGEST, digestOf(Buffer.from("m"))],
      ]);
      assert.equal(reasonOf(await decide(chain, { labels })), "claimed by cri-labels");
    }
  });

  it("finds the image in the content store by the chain ID, port recovered", async () => {
    const { provider, containerd, decide } = bench();
    containerd.add({ seeds: ["other"], labels: SOURCE, createdNs: 9n });
    const { chains, manifest } = containerd.add({ seeds: ["a", "b"], labels: SOURCE });
    containerd.images.push("reg.example:5001/app:2");
    const [base] = chains;
    assert.ok(base !== undefined);
    provider.onEnsure = () => Promise.resolve(chains.map(provided));
    assert.equal(reasonOf(await decide(base)), "claimed by content-store");
    const image = provider.of("ensure")[0]?.image;
    assert.equal(image?.reference, `reg.example:5001/app@${manifest}`);
    assert.deepEqual(image.alternatives, ["reg.example:5000/app", "reg.example/app"]);
    assert.equal(image.platform, "linux/amd64");
    assert.equal(image.chainId, base);
  });

  it("prefers the newest of several images with the chain, and tries the next", async () => {
    const { provider, containerd, decide } = bench();
    const old = containerd.add({ seeds: ["a"], labels: SOURCE, createdNs: 1n });
    const { chains, manifest } = containerd.add({
      seeds: ["a"],
      compression: "zstd",
      labels: SOURCE,
      createdNs: 2n,
    });
    const [chain] = chains;
    assert.ok(chain !== undefined);
    provider.onEnsure = (image) =>
      image.manifestDigest === manifest
        ? Promise.reject(new DaemonError("not-found", "gone from the registry"))
        : Promise.resolve(chains.map(provided));
    assert.equal(reasonOf(await decide(chain)), "claimed by content-store");
    const tried = provider.of("ensure").map(({ image }) => image.manifestDigest);
    assert.deepEqual(tried, [manifest, old.manifest]);
  });

  it("searches every namespace when the request names none", async () => {
    const { provider, containerd, decide } = bench();
    const { chains } = containerd.add({ seeds: ["a"], labels: SOURCE, namespace: "k8s.io" });
    const [chain] = chains;
    assert.ok(chain !== undefined);
    provider.onEnsure = () => Promise.resolve(chains.map(provided));
    assert.equal(reasonOf(await decide(chain)), "no-manifest-lists-the-chain");
    assert.equal(reasonOf(await decide(chain, { namespace: "" })), "claimed by content-store");
  });

  it("says why a layer is not claimed", async () => {
    const chain = parseChainId(digestOf(Buffer.from("x")));
    const none = bench();
    assert.equal(reasonOf(await none.decide(chain)), "no-manifest-lists-the-chain");

    const noSource = bench();
    const imported = noSource.containerd.add({ seeds: ["a"] });
    const [importedChain] = imported.chains;
    assert.ok(importedChain !== undefined);
    assert.equal(reasonOf(await noSource.decide(importedChain)), "no-distribution-source-label");

    const away = bench();
    away.containerd.failure = new DaemonError("unavailable", "away");
    assert.equal(reasonOf(await away.decide(chain)), "content-store-unreadable");

    const down = bench();
    down.provider.failure = new DaemonError("unavailable", "image service is away");
    assert.equal(reasonOf(await down.decide(chain)), "provider-unavailable");

    const foreign = bench();
    const [foreignChain] = foreign.containerd.add({ seeds: ["a"], labels: SOURCE }).chains;
    assert.ok(foreignChain !== undefined);
    assert.equal(reasonOf(await foreign.decide(foreignChain)), "image-not-lazy");

    const other = bench();
    const [otherChain] = other.containerd.add({ seeds: ["a"], labels: SOURCE }).chains;
    assert.ok(otherChain !== undefined);
    other.provider.onEnsure = () => Promise.resolve([provided(chain)]);
    assert.equal(reasonOf(await other.decide(otherChain)), "chain-not-in-image");
  });

  it("is not led astray by broken or false documents in the store", async () => {
    const { provider, containerd, decide } = bench();
    containerd.addBroken(Buffer.from("not json"));
    containerd.addBroken(Buffer.from("{}"), digestOf(Buffer.from("something else")));
    const { chains } = containerd.add({ seeds: ["a"], labels: SOURCE });
    const [chain] = chains;
    assert.ok(chain !== undefined);
    provider.onEnsure = () => Promise.resolve(chains.map(provided));
    assert.equal(reasonOf(await decide(chain)), "claimed by content-store");
  });

  it("does not remember a manifest whose config was not there yet", async () => {
    const { containerd, provider, decide } = bench();
    const { chains } = containerd.add({ seeds: ["a"], labels: SOURCE });
    const [chain] = chains;
    assert.ok(chain !== undefined);
    provider.onEnsure = () => Promise.resolve(chains.map(provided));
    const { manifest } = containerd.add({ seeds: ["later"], labels: SOURCE });
    containerd.remove(manifest);
    assert.equal(reasonOf(await decide(chain)), "claimed by content-store");
    const [late] = containerd.add({ seeds: ["later"], labels: SOURCE }).chains;
    assert.ok(late !== undefined);
    provider.onEnsure = () => Promise.resolve([provided(late)]);
    assert.equal(reasonOf(await decide(late)), "claimed by content-store");
  });

  it("reads each manifest once", async () => {
    const { containerd, provider, decide } = bench();
    for (let at = 0; at < 20; at += 1) containerd.add({ seeds: [`s${at}`], labels: SOURCE });
    const absent = parseChainId(digestOf(Buffer.from("absent")));
    await decide(absent);
    const reads = containerd.counts.get("readContent");
    await decide(absent);
    assert.equal(reads, 40);
    assert.equal(containerd.counts.get("readContent"), reads);
    assert.equal(provider.of("ensure").length, 0);
  });

  it("tries an image that fell through again from its bottom, not from layers above", async () => {
    const { containerd, provider, decide } = bench();
    const [base, middle, top] = containerd.add({ seeds: ["a", "b", "c"], labels: SOURCE }).chains;
    assert.ok(base !== undefined && middle !== undefined && top !== undefined);
    assert.equal(reasonOf(await decide(base)), "image-not-lazy");
    for (const chain of [middle, top]) {
      const decision = await decide(chain, { isAboveLocal: true });
      assert.equal(reasonOf(decision), "layer-below-not-claimed");
    }
    assert.equal(provider.of("ensure").length, 1);
    // The registry is back, the user pulls again: the bottom is asked for afresh.
    provider.onEnsure = () => Promise.resolve([base, middle, top].map(provided));
    assert.equal(reasonOf(await decide(base)), "claimed by content-store");
    assert.equal(
      reasonOf(await decide(middle, { isAboveLocal: true })),
      "claimed by content-store",
    );
  });

  it("forgets after a while that an image fell through", async () => {
    const { containerd, clock, decide } = bench();
    const [base, top] = containerd.add({ seeds: ["a", "b"], labels: SOURCE }).chains;
    assert.ok(base !== undefined && top !== undefined);
    await decide(base);
    clock.advance(10 * 60 * 1000 + 1);
    assert.equal(reasonOf(await decide(top, { isAboveLocal: true })), "image-not-lazy");
  });

  it("gives up waiting for the maps in time; the work itself is not told", async () => {
    const { containerd, provider, clock, decide } = bench();
    const [chain] = containerd.add({ seeds: ["a"], labels: SOURCE }).chains;
    assert.ok(chain !== undefined);
    provider.onEnsure = () => new Promise(() => undefined);
    const deciding = decide(chain);
    while (provider.of("ensure").length === 0) await new Promise(setImmediate);
    clock.advance(1001);
    const decision = await deciding;
    assert.equal(reasonOf(decision), "image-not-lazy");
    assert.equal(clock.timers, 0);
  });

  it("throws when the caller leaves, at every stage", async () => {
    const { containerd, provider, claims } = bench();
    const [chainId] = containerd.add({ seeds: ["a"], labels: SOURCE }).chains;
    assert.ok(chainId !== undefined);
    provider.onEnsure = () => new Promise(() => undefined);
    const request = { chainId, namespace: "default", labels: new Map(), isAboveLocal: false };
    const early = new AbortController();
    early.abort();
    await assert.rejects(claims.decide(request, { signal: early.signal }), { code: "canceled" });
    const late = new AbortController();
    const deciding = claims.decide(request, { signal: late.signal });
    while (provider.of("ensure").length === 0) await new Promise(setImmediate);
    late.abort();
    await assert.rejects(deciding, { code: "canceled" });
  });
});
