/** Manifests and configs once for all: who is asked when, and what is believed. */
import assert from "node:assert/strict";
import { DaemonError } from "../../../../src/base/errors.ts";
import {
  JOIN_LOOK_MS,
  JOIN_MS_MAX,
  LIAR_MS,
  OWNER_MS_MAX,
  OWNER_SILENCE_MS,
  REFUSED_MS,
  REGISTRY_PATIENCE_MS,
  SILENT_MS,
  WITNESSES_AT_ONCE_MAX,
  WITNESSES_MAX,
} from "../../../../src/daemon/peers/document-owner.ts";
import { settle } from "../../../support/block/fake-clock.ts";
import {
  BY_DIGEST,
  CONFIG,
  CONFIG_NAME,
  Fixture,
  MANIFEST,
  NEWER,
  SILENCE_MS,
  TAG,
  TAG_TTL_MS,
  unavailable,
} from "./document-fixture.ts";

describe("a document that members share", () => {
  describe("while the registry answers", () => {
    it("costs one request however many want it at the same moment", async () => {
      const fixture = new Fixture("a", "b", "c", "d", "e");

      for (const wanted of [TAG, BY_DIGEST, CONFIG_NAME]) {
        const all = await Promise.all(fixture.members.map(async (one) => one.get(wanted)));
        for (const { digest } of all) assert.equal(digest, all[0]?.digest);
      }

      // The tag's manifest is known by its digest already.
      assert.deepEqual(fixture.registry.asked, ["a", "a"]);
      assert.deepEqual(fixture.member("a").owner.counts, {
        ...{ store: 1, owner: 0, member: 0, registry: 2 },
      });
      assert.deepEqual(fixture.member("b").owner.counts, {
        ...{ store: 1, owner: 2, member: 0, registry: 0 },
      });
    });

    it("is one flight at the owner while the registry thinks", async () => {
      const fixture = new Fixture("a", "b", "c");
      let release: () => void = () => undefined;
      fixture.registry.held = new Promise((resolve) => {
        release = resolve;
      });

      const early = fixture.member("b").get(TAG);
      await settle();
      const late = [fixture.member("c").get(TAG), fixture.member("a").get(TAG)];
      await settle();
      release();

      await Promise.all([early, ...late]);
      assert.deepEqual(fixture.registry.asked, ["a"]);
    });

    it("is known by what an image's record says, without a question", async () => {
      const fixture = new Fixture("a", "b");
      fixture.member("b").stored.push({ name: CONFIG_NAME, document: CONFIG });

      await fixture.member("b").get(CONFIG_NAME);

      assert.deepEqual([fixture.carried, fixture.registry.asked], [[], []]);
    });

    it("is read with the own credentials where the registry refuses it to the owner", async () => {
      const fixture = new Fixture("a", "b", "c");
      for (const code of ["unauthenticated", "permission-denied", "not-found"] as const) {
        fixture.member("a").refusal = new DaemonError(code, "no");
        fixture.registry.asked.length = 0;

        assert.equal((await fixture.member("b").get(TAG)).digest, MANIFEST.digest);

        assert.deepEqual(fixture.registry.asked, ["a", "b"], code);
        await fixture.clock.advance(TAG_TTL_MS);
      }
    });

    it("is not asked for again and again by an owner that is refused", async () => {
      const fixture = new Fixture("a", "b", "c");
      fixture.member("a").refusal = new DaemonError("unauthenticated", "no");

      await fixture.member("b").get(TAG);
      await fixture.member("c").get(TAG);
      assert.deepEqual(fixture.registry.asked, ["a", "b", "c"]);

      await fixture.clock.advance(TAG_TTL_MS + REFUSED_MS);
      await fixture.member("b").get(TAG);
      assert.deepEqual(fixture.registry.asked.slice(3), ["a", "b"]);
    });

    it("is refused with the registry's own word", async () => {
      const fixture = new Fixture("a", "b");

      await assert.rejects(fixture.member("b").get({ ...TAG, reference: "none" }), {
        code: "not-found",
        message: "the registry answered 404",
      });
    });

    it("is never asked of others where the registry's name is a machine's own", async () => {
      const fixture = new Fixture("a", "b");
      const own = { ...TAG, registry: "localhost:5000" };

      await fixture.member("b").get(own);

      assert.deepEqual([fixture.carried, fixture.registry.asked], [[], ["b"]]);
      await assert.rejects(
        fixture
          .member("a")
          .owner.answer({ ...own, reach: "forward" }, { signal: new AbortController().signal }),
        { code: "not-found" },
      );
    });
  });

  describe("when its owner", () => {
    it("refuses the connection comes from the second in rank, who asks it no more", async () => {
      const fixture = new Fixture("a", "b", "c", "d");
      fixture.member("a").behaviour = "refuses-connections";

      await Promise.all([fixture.member("c").get(TAG), fixture.member("d").get(TAG)]);

      assert.deepEqual(fixture.registry.asked, ["b"]);
      assert.deepEqual(fixture.carried.toSorted(), [
        ...["c>a forward", "c>b fetch", "d>a forward", "d>b fetch"],
      ]);
    });

    it("is silent comes from the second after 300 ms, and at once the next time", async () => {
      const fixture = new Fixture("a", "b", "c");
      fixture.member("a").behaviour = "silent";
      const getting = fixture.member("c").get(TAG);
      await fixture.clock.advance(SILENCE_MS - 1);
      assert.deepEqual(fixture.registry.asked, []);
      await fixture.clock.advance(1);

      assert.equal((await getting).digest, MANIFEST.digest);
      assert.deepEqual(fixture.registry.asked, ["b"]);

      await fixture.member("c").get(CONFIG_NAME);
      assert.deepEqual(fixture.carried, ["c>a forward", "c>b fetch", "c>b fetch"]);
      await fixture.clock.advance(SILENT_MS);
      fixture.member("a").behaviour = "honest";
      await fixture
        .member("c")
        .get({ ...TAG, reference: NEWER.digest })
        .catch(() => undefined);
      assert.equal(fixture.carried.at(-1), "c>a forward");
    });

    it("is silent for want of a processor is waited for beside the second", async () => {
      const fixture = new Fixture("a", "b", "c");
      fixture.member("a").behaviour = "silent";
      fixture.member("b").behaviour = "silent";
      const getting = fixture.member("c").get(TAG);
      await fixture.clock.advance(OWNER_SILENCE_MS - 1);
      assert.deepEqual(fixture.carried, ["c>a forward", "c>b fetch"]);
      assert.deepEqual(fixture.registry.asked, []);

      await fixture.clock.advance(SILENCE_MS + 1);
      await getting;
      assert.deepEqual(fixture.registry.asked, ["c"]);
      // Both are asked last now; still before the registry.
      void fixture.member("c").get(CONFIG_NAME);
      await settle();
      assert.deepEqual(fixture.carried.slice(2), ["c>a forward"]);
    });

    it("is at it already is waited for by the second, who is asked too", async () => {
      const fixture = new Fixture("a", "b", "c");
      fixture.predecessors.push("a");
      let release: () => void = () => undefined;
      fixture.registry.held = new Promise((resolve) => {
        release = resolve;
      });
      const first = fixture.member("a").get(TAG);
      await settle();
      fixture.member("c").ranking = ["b", "c"];
      fixture.member("b").ranking = ["b", "a"];
      const second = fixture.member("c").get(TAG);
      await settle();
      assert.deepEqual(fixture.carried, ["c>b forward", "b>a flight"]);
      release();

      await Promise.all([first, second]);
      assert.deepEqual(fixture.registry.asked, ["a"]);
    });

    it("and the second are away comes from the registry itself", async () => {
      const fixture = new Fixture("a", "b", "c");
      fixture.member("a").behaviour = "refuses-connections";
      fixture.member("b").behaviour = "refuses-connections";

      await fixture.member("c").get(TAG);

      assert.deepEqual(fixture.registry.asked, ["c"]);
    });

    it("lives but has no answer comes from the second in the end", async () => {
      const fixture = new Fixture("a", "b", "c");
      let release: () => void = () => undefined;
      fixture.registry.held = new Promise((resolve) => {
        release = resolve;
      });
      const getting = fixture.member("c").get(TAG);
      await fixture.clock.advance(OWNER_MS_MAX);

      assert.deepEqual(fixture.registry.asked, ["a", "b"]);
      release();
      await getting;
    });

    it("gives other bytes is not believed, and the next is asked", async () => {
      for (const lie of [
        () => NEWER,
        () => ({ ...MANIFEST, bytes: NEWER.bytes }),
        () => ({ ...MANIFEST, bytes: Buffer.from("{}") }),
      ]) {
        const fixture = new Fixture("a", "b", "c");
        fixture.member("a").lie = lie;

        const { bytes } = await fixture.member("c").get(BY_DIGEST);

        assert.deepEqual(bytes, MANIFEST.bytes);
        assert.deepEqual(fixture.carried, ["c>a forward", "c>b fetch"]);
        assert.equal(fixture.events("document-refused"), 1);
        await fixture.clock.advance(LIAR_MS - 1);
        await fixture.member("c").get(CONFIG_NAME);
        assert.equal(fixture.carried.at(-1), "c>b fetch");
      }
    });

    it("gives no manifest for a tag is not believed", async () => {
      const fixture = new Fixture("a", "b", "c");
      fixture.member("a").lie = () => CONFIG;

      assert.equal((await fixture.member("c").get(TAG)).digest, MANIFEST.digest);
      assert.equal(fixture.events("document-refused"), 1);
    });

    it("is known but to a seed comes through the seed, by one hop", async () => {
      const fixture = new Fixture("a", "seed", "new");
      fixture.member("new").ranking = ["seed", "new"];

      await fixture.member("new").get(TAG);

      assert.deepEqual(fixture.carried, ["new>seed forward", "seed>a fetch"]);
      assert.deepEqual(fixture.registry.asked, ["a"]);
    });

    it("is not known yet is waited for by a node that has just started", async () => {
      const fixture = new Fixture("a", "new");
      const newcomer = fixture.member("new");
      newcomer.ranking = ["new"];
      const getting = newcomer.get(TAG);
      await fixture.clock.advance(JOIN_MS_MAX / 2);
      assert.deepEqual(fixture.registry.asked, []);
      newcomer.ranking = undefined;
      await fixture.clock.advance(JOIN_LOOK_MS);

      await getting;
      assert.deepEqual(fixture.registry.asked, ["a"]);
    });

    it("is nobody, a node alone asks the registry, and soon", async () => {
      const fixture = new Fixture("a");
      const getting = fixture.member("a").get(TAG);
      await fixture.clock.advance(JOIN_MS_MAX);

      await getting;
      await fixture.member("a").get(CONFIG_NAME);
      assert.deepEqual(fixture.registry.asked, ["a", "a"]);
    });

    it("is another in each view is looked for no further than one hop", async () => {
      const fixture = new Fixture("a", "b", "c", "d");
      // Each takes the next for the owner.
      for (const [id, next] of [
        ["a", "b"],
        ["b", "c"],
        ["c", "d"],
        ["d", "a"],
      ] as const) {
        fixture.member(id).ranking = [next, id];
      }

      await fixture.member("a").get(TAG);

      assert.deepEqual(fixture.carried, ["a>b forward", "b>c fetch"]);
      assert.deepEqual(fixture.registry.asked, ["c"]);
    });

    it("takes the asker for the owner reads it once, and nobody waits in a circle", async () => {
      const fixture = new Fixture("a", "b");
      fixture.member("a").ranking = ["b", "a"];
      fixture.member("b").ranking = ["a", "b"];

      await Promise.all(fixture.members.map(async (member) => member.get(TAG)));

      assert.ok(fixture.registry.asked.length <= 2, fixture.registry.asked.join());
    });

    it("has just become it asks those before it, not the registry", async () => {
      const fixture = new Fixture("a", "b", "c");
      const before = fixture.member("b");
      before.cache.keep(TAG, MANIFEST);
      before.cache.keep(CONFIG_NAME, CONFIG);
      fixture.predecessors.push("b");

      await fixture.member("c").get(TAG);
      await fixture.member("c").get(CONFIG_NAME);
      assert.deepEqual(fixture.registry.asked, []);
      assert.equal(fixture.member("a").owner.counts.member, 2);

      await fixture.clock.advance(TAG_TTL_MS);
      await fixture.member("c").get(TAG);
      assert.deepEqual(fixture.registry.asked, ["a"]);
    });
  });

  describe("that is a tag's meaning", () => {
    it("is believed for its time to live, wherever it has been", async () => {
      const fixture = new Fixture("a", "b", "c");
      await fixture.member("a").get(TAG);
      fixture.registry.publish(TAG, NEWER);
      await fixture.clock.advance(TAG_TTL_MS - 1);

      assert.equal((await fixture.member("b").get(TAG)).digest, MANIFEST.digest);
      assert.equal((await fixture.member("a").get(TAG)).digest, MANIFEST.digest);
      // What b was told a moment ago is as old as what it was told.
      await fixture.clock.advance(1);

      assert.equal((await fixture.member("b").get(TAG)).digest, NEWER.digest);
      assert.deepEqual(fixture.registry.asked, ["a", "a"]);
    });

    it("is not taken from an image's record while a registry answers", async () => {
      const fixture = new Fixture("a", "b");
      fixture.member("b").stored.push({ name: TAG, document: { ...NEWER, ageMs: undefined } });

      assert.equal((await fixture.member("b").get(TAG)).digest, MANIFEST.digest);
    });
  });

  describe("while the registry is away", () => {
    it("is given past its time, and the log says so", async () => {
      const fixture = new Fixture("a", "b");
      await fixture.member("b").get(TAG);
      await fixture.clock.advance(10 * TAG_TTL_MS);
      fixture.registry.failure = unavailable("connection refused");

      assert.equal((await fixture.member("b").get(TAG)).digest, MANIFEST.digest);
      assert.equal(fixture.events("document-without-registry"), 1);
      assert.deepEqual(fixture.registry.asked, ["a", "a"]);
    });

    it("comes from whichever member knows the image, for a node with nothing", async () => {
      const fixture = new Fixture(..."abcdefghijklmnopqrstuvwxyz");
      const last = fixture.member("z");
      last.stored.push(
        { name: TAG, document: { ...MANIFEST, ageMs: undefined } },
        { name: CONFIG_NAME, document: CONFIG },
      );
      fixture.registry.failure = unavailable("connection refused");

      assert.equal((await fixture.member("c").get(TAG)).digest, MANIFEST.digest);
      assert.equal((await fixture.member("c").get(CONFIG_NAME)).digest, CONFIG.digest);
      // What is known by hearsay is asked for again when the registry is back.
      fixture.registry.failure = undefined;
      fixture.registry.publish(TAG, NEWER);
      assert.equal((await fixture.member("c").get(TAG)).digest, NEWER.digest);
    });

    it("is asked of so many members at most, some at a time", async () => {
      const ids = Array.from({ length: WITNESSES_MAX + 20 }, (_, index) => `n${index}`);
      const fixture = new Fixture(...ids);
      const [first] = fixture.members;
      assert.ok(first !== undefined);
      fixture.registry.failure = unavailable("connection refused");
      for (const member of fixture.members.slice(1)) member.behaviour = "silent";

      const getting = first.get(TAG);
      getting.catch(() => undefined);
      await settle();
      assert.equal(fixture.carried.length, WITNESSES_AT_ONCE_MAX);
      await fixture.clock.advance(60_000);

      await assert.rejects(getting, { code: "unavailable", message: "connection refused" });
      assert.equal(fixture.carried.length, WITNESSES_MAX);
    });

    it("is given though the registry neither answers nor refuses", async () => {
      const fixture = new Fixture("a", "b");
      await fixture.member("b").get(TAG);
      await fixture.clock.advance(TAG_TTL_MS);
      fixture.registry.publish(TAG, NEWER);
      let release: () => void = () => undefined;
      fixture.registry.held = new Promise((resolve) => {
        release = resolve;
      });
      const getting = fixture.member("b").get(TAG);
      await fixture.clock.advance(REGISTRY_PATIENCE_MS);

      assert.equal((await getting).digest, MANIFEST.digest);
      release();
      await settle();
      // What it said in the end is for the next.
      assert.equal((await fixture.member("a").get(TAG)).digest, NEWER.digest);
    });

    it("is refused by the registry's own word where nobody knows it", async () => {
      const fixture = new Fixture("a", "b", "c");
      fixture.registry.failure = unavailable("connection refused");

      await assert.rejects(fixture.member("c").get(TAG), {
        code: "unavailable",
        message: "connection refused",
      });
    });
  });

  it("is not waited for by whoever leaves, and still comes for the others", async () => {
    const fixture = new Fixture("a", "b");
    let release: () => void = () => undefined;
    fixture.registry.held = new Promise((resolve) => {
      release = resolve;
    });
    const leaver = new AbortController();
    const left = fixture.member("b").get(TAG, leaver.signal);
    const stays = fixture.member("b").get(TAG);
    await settle();
    leaver.abort(new DaemonError("canceled", "gone"));

    await assert.rejects(left, { code: "canceled" });
    release();
    assert.equal((await stays).digest, MANIFEST.digest);
  });
});
