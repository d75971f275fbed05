import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DaemonError } from "../../../../src/base/errors.ts";
import { parseEntry, PORT_DEFAULT, SeedList } from "../../../../src/peer/node/seeds.ts";
import type { NameResolver } from "../../../../src/peer/node/seeds.ts";
import { SimClock, SimTime } from "../../../support/peer/sim-clock.ts";

const { signal } = new AbortController();

class FakeResolver implements NameResolver {
  readonly names = new Map<string, readonly string[]>();
  readonly services_ = new Map<string, readonly { name: string; port: number }[]>();
  isSilent = false;

  async addresses(name: string): Promise<readonly string[]> {
    if (this.isSilent) return new Promise(() => undefined);
    const found = this.names.get(name);
    if (found === undefined) throw new Error(`ENOTFOUND ${name}`);
    return found;
  }

  async services(name: string): Promise<readonly { name: string; port: number }[]> {
    return this.services_.get(name) ?? [];
  }
}

function make(entries: readonly string[]): {
  readonly seeds: SeedList;
  readonly resolver: FakeResolver;
  readonly time: SimTime;
  readonly texts: () => readonly string[];
} {
  const resolver = new FakeResolver();
  const time = new SimTime();
  const seeds = new SeedList(entries, { resolver, clock: new SimClock(time) });
  const texts = (): readonly string[] => seeds.addresses.map(({ host, port }) => `${host} ${port}`);
  return { seeds, resolver, time, texts };
}

describe("A seed entry", () => {
  for (const [entry, host, port, isService] of [
    ["10.0.0.1:99", "10.0.0.1", 99, false],
    ["10.0.0.1", "10.0.0.1", PORT_DEFAULT, false],
    ["[fd00::1]:99", "fd00::1", 99, false],
    ["[fd00::1]", "fd00::1", PORT_DEFAULT, false],
    ["fd00::1", "fd00::1", PORT_DEFAULT, false],
    ["peers.example:99", "peers.example", 99, false],
    ["_faasnet._udp.example", "_faasnet._udp.example", PORT_DEFAULT, true],
  ] as const) {
    it(`may be ${entry}`, () => {
      assert.deepEqual(parseEntry(entry), { host, port, isService });
    });
  }

  for (const entry of ["", "a b", "a:0", "a:65536", "a:b", "[10.0.0.1]:1", "_x._udp.a:1", "a/b"]) {
    it(`may not be ${JSON.stringify(entry)}`, () => {
      assert.throws(() => parseEntry(entry), DaemonError);
    });
  }
});

describe("A list of seeds", () => {
  it("has the addresses of names, of both families, and of services", async () => {
    const { seeds, resolver, texts } = make(["10.0.0.1:1", "a.example:2", "_s._udp.example"]);
    resolver.names.set("a.example", ["10.0.0.2", "FD00:0::2"]);
    resolver.names.set("b.example", ["10.0.0.3"]);
    resolver.services_.set("_s._udp.example", [{ name: "b.example", port: 3 }]);
    await seeds.resolve({ signal });
    assert.deepEqual(texts(), ["10.0.0.1 1", "10.0.0.2 2", "fd00::2 2", "10.0.0.3 3"]);
  });

  it("follows a name that changes, and keeps its addresses when it fails", async () => {
    const { seeds, resolver, texts } = make(["a.example:2"]);
    const error = (): string => seeds.report.map((one) => one.error ?? "none").join();
    await seeds.resolve({ signal });
    assert.match(error(), /ENOTFOUND/);
    resolver.names.set("a.example", ["10.0.0.2"]);
    await seeds.resolve({ signal });
    assert.equal(error(), "none");
    resolver.names.set("a.example", ["10.0.0.4"]);
    await seeds.resolve({ signal });
    assert.deepEqual(texts(), ["10.0.0.4 2"]);
    resolver.names.delete("a.example");
    await seeds.resolve({ signal });
    assert.deepEqual(texts(), ["10.0.0.4 2"]);
    assert.match(error(), /ENOTFOUND/);
  });

  it("does not wait for ever for a resolver, nor let it hold up the other entries", async () => {
    const { seeds, resolver, time, texts } = make(["a.example", "10.0.0.1:1"]);
    resolver.isSilent = true;
    const resolved = seeds.resolve({ signal });
    await time.runAsync(6000, 100);
    await resolved;
    assert.deepEqual(texts(), ["10.0.0.1 1"]);
    assert.match(seeds.report[0]?.error ?? "", /no answer in 5 s/);
  });

  it("reads a file again, and keeps what it had while the file is gone", async () => {
    const folder = await mkdtemp(join(tmpdir(), "faasnet-seeds-"));
    try {
      const path = join(folder, "seeds");
      const { seeds, texts } = make([path]);
      await writeFile(path, "# ours\n10.0.0.1:1 # first\n\n10.0.0.2:2\n");
      await seeds.resolve({ signal });
      assert.deepEqual(texts(), ["10.0.0.1 1", "10.0.0.2 2"]);
      await rm(path);
      await seeds.resolve({ signal });
      assert.deepEqual(texts(), ["10.0.0.1 1", "10.0.0.2 2"]);
      assert.ok(seeds.report.some(({ entry, error }) => entry === path && error !== undefined));
      await writeFile(path, "10.0.0.3:3\n");
      await seeds.resolve({ signal });
      assert.deepEqual(texts(), ["10.0.0.3 3"]);
      await writeFile(path, "x".repeat(70_000));
      await seeds.resolve({ signal });
      assert.deepEqual(texts(), ["10.0.0.3 3"]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
