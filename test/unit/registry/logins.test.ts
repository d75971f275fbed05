/** Logins: tokens, basic, identity tokens, their renewal, and where they are never sent. */
import assert from "node:assert/strict";
import { DaemonError, errorMessage } from "../../../src/base/errors.ts";
import type { CredentialSource } from "../../../src/registry/index.ts";
import { tokenAuth } from "../../support/registry/fake-auth.ts";
import { fakeBytes } from "../../support/registry/fake-image.ts";
import { FakeRegistry } from "../../support/registry/fake-registry.ts";
import { collect, noAbort, testPool } from "../../support/registry/pool.ts";

function login(username: string, password: string): CredentialSource {
  return { lookup: async () => ({ kind: "password", username, password }) };
}

async function rejection(promise: Promise<unknown>): Promise<DaemonError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof DaemonError, String(error));
    return error;
  }
  return assert.fail("did not reject");
}

describe("RegistryClient", () => {
  describe("logins", () => {
    it("gets one anonymous token for many requests at once", async () => {
      const auth = tokenAuth();
      await using registry = await FakeRegistry.start({ auth });
      const digest = registry.addBlob(fakeBytes(100));
      await using test = testPool();
      const client = test.pool.client(registry.domain);

      const read = async (): Promise<Buffer> =>
        collect(await client.openBlob("app", digest, { start: 0, end: 10 }, { signal: noAbort() }));
      await Promise.all(Array.from({ length: 8 }, read));
      await read();

      assert.equal(auth.issued.length, 1);
    });

    it("sends user and password to the token server only", async () => {
      const auth = tokenAuth({ username: "ann", password: "s3cret" });
      await using registry = await FakeRegistry.start({ auth });
      const digest = registry.addBlob(fakeBytes(100));
      await using test = testPool({ credentials: login("ann", "s3cret") });
      const client = test.pool.client(registry.domain);

      await collect(await client.openBlob("app", digest, undefined, { signal: noAbort() }));

      const basic = registry.log.filter(({ authorization }) => authorization?.startsWith("Basic"));
      assert.deepEqual(
        basic.map(({ url }) => new URL(url, registry.origin).pathname),
        ["/token"],
      );
    });

    it("exchanges an identity token by POST", async () => {
      const auth = tokenAuth({ username: "nobody", refreshToken: "refresh-me" });
      await using registry = await FakeRegistry.start({ auth });
      const digest = registry.addBlob(fakeBytes(100));
      const credentials: CredentialSource = {
        lookup: async () => ({ kind: "identity", token: "refresh-me" }),
      };
      await using test = testPool({ credentials });

      await collect(
        await test.pool
          .client(registry.domain)
          .openBlob("app", digest, undefined, { signal: noAbort() }),
      );

      const token = registry.log.find(({ url }) => url.startsWith("/token"));
      assert.equal(token?.method, "POST");
      assert.equal(new URLSearchParams(token.body).get("grant_type"), "refresh_token");
    });

    it("renews a token that ran out before it is refused", async () => {
      const auth = tokenAuth({ expiresInSeconds: 300 });
      await using registry = await FakeRegistry.start({ auth });
      const digest = registry.addBlob(fakeBytes(100));
      await using test = testPool();
      const client = test.pool.client(registry.domain);
      const read = async (): Promise<Buffer> =>
        collect(await client.openBlob("app", digest, undefined, { signal: noAbort() }));

      await read();
      test.clock.advance(295_000);
      await read();

      assert.equal(auth.issued.length, 2);
      const refused = registry.log.filter(({ status, url }) => status === 401 && url !== "/v2/");
      assert.equal(refused.length, 1);
    });

    for (const status of [401, 403]) {
      it(`renews a token that is refused with ${status}`, async () => {
        const auth = tokenAuth();
        await using registry = await FakeRegistry.start({ auth });
        const digest = registry.addBlob(fakeBytes(100));
        await using test = testPool();
        const client = test.pool.client(registry.domain);
        const read = async (): Promise<Buffer> =>
          collect(await client.openBlob("app", digest, undefined, { signal: noAbort() }));

        await read();
        test.clock.advance(20_000);
        registry.fail(/blobs/, { kind: "status", status });
        await read();

        assert.equal(auth.issued.length, 2);
      });
    }

    it("gives up on a login that is refused, without naming it", async () => {
      const auth = tokenAuth({ username: "ann", password: "right" });
      await using registry = await FakeRegistry.start({ auth });
      const digest = registry.addBlob(fakeBytes(100));
      await using test = testPool({ credentials: login("ann", "wrong-s3cret") });

      const error = await rejection(
        test.pool.client(registry.domain).openBlob("app", digest, undefined, { signal: noAbort() }),
      );

      assert.equal(error.code, "unauthenticated");
      const everything = `${errorMessage(error)} ${JSON.stringify(test.lines)}`;
      assert.doesNotMatch(everything, /s3cret|YW5u/);
    });

    it("uses a basic login and asks again when it changed", async () => {
      const auth = { kind: "basic", username: "ann", password: "new" } as const;
      await using registry = await FakeRegistry.start({ auth });
      const digest = registry.addBlob(fakeBytes(100));
      const passwords = ["old", "new"];
      const credentials: CredentialSource = {
        lookup: async () => ({
          kind: "password",
          username: "ann",
          password: passwords.shift() ?? "new",
        }),
      };
      await using test = testPool({ credentials });
      const client = test.pool.client(registry.domain);

      const first = await rejection(client.ping({ signal: noAbort() }));
      await collect(await client.openBlob("app", digest, undefined, { signal: noAbort() }));

      assert.equal(first.code, "unauthenticated");
    });

    it("does not send a login to another origin by redirect", async () => {
      await using store = await FakeRegistry.start();
      await using registry = await FakeRegistry.start({
        auth: { kind: "basic", username: "ann", password: "pw" },
      });
      const bytes = fakeBytes(100);
      const digest = store.addBlob(bytes);
      registry.fail(
        ({ authorization, url }) => authorization !== undefined && url.includes("blobs"),
        {
          kind: "redirect",
          location: `${store.origin}/v2/app/blobs/${digest}?signature=hidden`,
        },
      );
      await using test = testPool({ credentials: login("ann", "pw") });

      const read = await collect(
        await test.pool
          .client(registry.domain)
          .openBlob("app", digest, undefined, { signal: noAbort() }),
      );

      assert.deepEqual(read, bytes);
      assert.deepEqual(
        store.log.map(({ authorization }) => authorization),
        [undefined],
      );
    });
  });
});
