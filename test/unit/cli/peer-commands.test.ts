/** `faasnet peers` and `faasnet tree`, against a scripted service on a real socket. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Scope } from "../../../src/base/scope.ts";
import { EXIT } from "../../../src/cli/exit-codes.ts";
import { ControlServer } from "../../../src/control/index.ts";
import type { Handlers } from "../../../src/control/index.ts";
import type {
  CertificateReport,
  MirrorReport,
  PeersReport,
  TreeMemberReport,
  TreesReport,
} from "../../../src/daemon/index.ts";
import { runCommand } from "../../support/fake-daemon-api.ts";
import type { CommandResult } from "../../support/fake-daemon-api.ts";

const IMAGE = `sha256:${"0123456789abcdef".repeat(4)}`;
const MEMBER = {
  state: "alive",
  stateSeconds: 75,
  zone: "a",
  wireVersion: 1,
  isSelf: false,
  isSeed: false,
  roundTripMs: 0.423,
  clockAheadMs: -3,
  udp: "ok",
  tcp: "ok",
} as const;

const PEERS: PeersReport = {
  enabled: true,
  self: "n1",
  healthScore: 0,
  members: [
    {
      ...MEMBER,
      name: "n1",
      address: "10.0.0.1:7946",
      exchangeAddress: "10.0.0.1:7947",
      isSelf: true,
      isSeed: true,
      roundTripMs: null,
    },
    { ...MEMBER, name: "n2", address: "10.0.0.2:7946", exchangeAddress: "10.0.0.2:7947", zone: "" },
    {
      ...MEMBER,
      name: "n3",
      state: "suspect",
      stateSeconds: 2,
      address: "10.0.0.3:7946",
      exchangeAddress: "10.0.0.3:7947",
      roundTripMs: 12.4,
    },
  ],
  seeds: [{ entry: "seeds.example", addresses: ["10.0.0.1:7946"], error: null }],
  problems: [
    {
      kind: "tcp-blocked",
      who: "n3",
      detail: "open TCP port 7947 between the nodes",
      count: 4,
      secondsAgo: 9,
    },
    {
      kind: "wrong-key",
      who: "10.0.0.9:7946",
      detail: "its key file is another cluster's",
      count: 1200,
      secondsAgo: 0,
    },
    { kind: "moon-phase", who: "n2", detail: "wait", count: 1, secondsAgo: 60 },
  ],
  refused: { malformed: 0, "unknown-key": 1200, forged: 1, connections: 4 },
  documentsBySource: { store: 1, owner: 2, member: 0, registry: 0 },
};

const FED: TreeMemberReport = {
  name: "n1",
  zone: "",
  slot: 0,
  parent: null,
  blocksHeld: 30,
  bytesIn: 32_000_000,
  bytesOut: 64_000_000,
};

const TREES: TreesReport = {
  enabled: true,
  self: "n2",
  trees: [
    {
      image: IMAGE,
      reference: "localhost:5000/app:1",
      blocks: 40,
      epoch: { counter: 3, manager: "n4" },
      size: 4,
      root: "n1",
      isWhole: true,
      members: [
        { ...FED, name: "n3", slot: 2, parent: "n1", bytesOut: 0 },
        { ...FED, name: "n4", slot: 3, parent: "n2", bytesIn: null, bytesOut: null },
        { ...FED, name: "n2", slot: 1, parent: "n1", blocksHeld: 10 },
        FED,
      ],
      blocksBySource: {
        memory: { blocks: 0, bytes: 0 },
        disk: { blocks: 1200, bytes: 0 },
        parent: { blocks: 10, bytes: 9_000_000 },
      },
    },
  ],
};

describe("commands about peers", () => {
  let scope: Scope;
  let state: string;

  beforeEach(async () => {
    scope = new Scope();
    state = await mkdtemp(join(tmpdir(), "faasnet-cli-"));
    scope.defer(async () => rm(state, { recursive: true }));
  });

  afterEach(async () => {
    await scope[Symbol.asyncDispose]();
  });

  async function serve(handlers: Handlers): Promise<void> {
    scope.use(await ControlServer.listen(join(state, "image.sock"), handlers));
  }

  async function servePeers(report: PeersReport): Promise<void> {
    await serve({ "Image.Peers": async () => ({ json: JSON.stringify(report) }) });
  }

  async function serveTrees(report: TreesReport): Promise<unknown[]> {
    const asked: unknown[] = [];
    await serve({
      "Image.Trees": async (request) => {
        asked.push(request);
        return { json: JSON.stringify(report) };
      },
    });
    return asked;
  }

  async function run(argv: readonly string[]): Promise<CommandResult> {
    return runCommand([...argv, "--state", state]);
  }

  it("peers lists members, and each problem with what to do", async () => {
    await servePeers(PEERS);

    const { exitCode, stdout } = await run(["peers"]);

    assert.equal(exitCode, EXIT.ok);
    assert.equal(
      stdout,
      [
        "self     n1",
        "members  2 alive of 3",
        "health   good",
        "refused  1,201 packets (1,200 unknown-key, 1 forged), 4 connections",
        "",
        "NAME  STATE     FOR  ROUND TRIP  ADDRESS        BLOCKS FROM    ZONE  WIRE  NOTE",
        "n1    alive    1:15           -  10.0.0.1:7946  10.0.0.1:7947  a        1  this node, seed",
        "n2    alive    1:15     0.42 ms  10.0.0.2:7946  10.0.0.2:7947  -        1  moon phase",
        "n3    suspect  0:02       12 ms  10.0.0.3:7946  10.0.0.3:7947  a        1  blocked TCP",
        "",
        "blocked TCP: n3, seen 4 times, last 0:09 ago",
        "  open TCP port 7947 between the nodes",
        "",
        "wrong key: 10.0.0.9:7946, seen 1,200 times, last 0:00 ago",
        "  its key file is another cluster's",
        "",
        "moon phase: n2, seen 1 times, last 1:00 ago",
        "  wait",
        "",
      ].join("\n"),
    );
  });

  it("peers --json prints the report as it is, fields of a newer daemon too", async () => {
    const newer = { ...PEERS, incarnation: 7 };
    await servePeers(newer);

    const { stdout } = await run(["peers", "--json"]);

    assert.deepEqual(JSON.parse(stdout), newer);
  });

  it("peers says when its own probes are late", async () => {
    await servePeers({ ...PEERS, healthScore: 2 });

    const { stdout } = await run(["peers"]);

    assert.match(stdout, /^health {3}degraded \(2\): probes are late here/m);
  });

  it("peers and tree say how to turn peers on where they are off", async () => {
    const off = {
      enabled: false,
      self: "",
      healthScore: 0,
      members: [],
      seeds: [],
      problems: [],
      trees: [],
    };
    const json = JSON.stringify(off);
    await serve({ "Image.Peers": async () => ({ json }), "Image.Trees": async () => ({ json }) });

    for (const command of ["peers", "tree"]) {
      const { exitCode, stdout } = await run([command]);

      assert.equal(exitCode, EXIT.ok);
      assert.equal(stdout, "peers are off: [peer] enabled = true turns them on\n");
    }
  });

  it("say why peers that are wanted could not be started", async () => {
    const problem = {
      kind: "not-started",
      who: "[peer]",
      detail: "no key",
      count: 1,
      secondsAgo: 0,
    };
    const none = { enabled: false, self: "", healthScore: 0, members: [], seeds: [] };
    const json = JSON.stringify({ ...none, problems: [problem] });
    await serve({ "Image.Peers": async () => ({ json }) });

    assert.equal((await run(["peers"])).stdout, "peers could not be started: no key\n");
  });

  it("tree draws who feeds whom, this node marked", async () => {
    const asked = await serveTrees(TREES);

    const { exitCode, stdout } = await run(["tree", "app:1"]);

    assert.equal(exitCode, EXIT.ok);
    assert.deepEqual(asked, [{ image: "app:1" }]);
    assert.equal(
      stdout,
      [
        "localhost:5000/app:1  sha256:0123456789ab",
        "4 members, root n1, manager n4, epoch 3",
        "MEMBER (* this node)  ZONE  BLOCKS  HELD       IN      OUT",
        "n1                    -         30   75%  32.0 MB  64.0 MB",
        "├─ n2 *               -         10   25%  32.0 MB  64.0 MB",
        "│  └─ n4              -         30   75%        -        -",
        "└─ n3                 -         30   75%  32.0 MB      0 B",
        "this node's blocks: 1,200 disk, 10 parent (9.00 MB)",
        "",
      ].join("\n"),
    );
  });

  it("tree draws every member once also where parents are unknown or in a circle", async () => {
    const [tree] = TREES.trees;
    assert.ok(tree !== undefined);
    const members = [
      { ...FED, name: "n5", slot: 4, parent: "n6" },
      { ...FED, name: "n6", slot: 9, parent: "n5" },
      { ...FED, name: "n7", slot: 8, parent: "gone" },
    ];
    await serveTrees({ ...TREES, trees: [{ ...tree, size: 12, isWhole: false, members }] });

    const { stdout } = await run(["tree"]);

    const drawn = stdout.split("\n").filter((line) => /n[567]/.test(line));
    assert.deepEqual(
      drawn.map((line) => line.slice(0, 6).trimEnd()),
      ["n7", "n5", "└─ n6"],
    );
    assert.match(stdout, /^12 members, .*; 3 of them known here$/m);
  });

  it("tree says that no image is in use", async () => {
    await serveTrees({ ...TREES, trees: [] });

    assert.equal((await run(["tree"])).stdout, "no tree: no image is in use here\n");
  });

  it("refuse a report that is none", async () => {
    await serve({ "Image.Peers": async () => ({ json: '{"enabled": 1}' }) });

    const { exitCode, stderr } = await run(["peers"]);

    assert.equal(exitCode, EXIT.failure);
    assert.match(stderr, /the daemon's list of peers: /);
  });

  it("peers mirror prints the lines for containerd", async () => {
    const report: MirrorReport = {
      loopbackUrl: "http://127.0.0.1:7948",
      url: "https://10.0.0.1:7947",
    };
    await serve({ "Image.Mirror": async () => ({ json: JSON.stringify(report) }) });

    const { stdout } = await run(["peers", "mirror"]);

    assert.equal(stdout, '[host."http://127.0.0.1:7948"]\n  capabilities = ["pull", "resolve"]\n');
  });

  describe("peers cert", () => {
    const report: CertificateReport = {
      ca: "CA\n",
      certificate: "CERTIFICATE\n",
      privateKey: "KEY\n",
      url: "https://10.0.0.1:7947",
    };

    beforeEach(async () => {
      await serve({ "Image.Certificate": async () => ({ json: JSON.stringify(report) }) });
    });

    it("writes certificate, key and a hosts.toml that names them", async () => {
      const folder = join(state, "certs");

      const { exitCode, stdout } = await run(["peers", "cert", "--out", folder]);

      assert.equal(exitCode, EXIT.ok);
      const names = ["ca.crt", "client.cert", "client.key", "hosts.toml"];
      assert.equal(stdout, names.map((name) => `${join(folder, name)}\n`).join(""));
      assert.equal(await readFile(join(folder, "client.key"), "utf8"), "KEY\n");
      assert.equal((await stat(join(folder, "client.key"))).mode & 0o777, 0o600);
      assert.equal(
        await readFile(join(folder, "hosts.toml"), "utf8"),
        [
          '[host."https://10.0.0.1:7947"]',
          '  capabilities = ["pull", "resolve"]',
          `  ca = "${join(folder, "ca.crt")}"`,
          `  client = [["${join(folder, "client.cert")}", "${join(folder, "client.key")}"]]`,
          "",
        ].join("\n"),
      );
    });

    it("writes over nothing that is there", async () => {
      const folder = join(state, "certs");
      await run(["peers", "cert", "--out", folder]);

      const { exitCode, stderr } = await run(["peers", "cert", "--out", folder]);

      assert.equal(exitCode, EXIT.failure);
      assert.match(stderr, /cannot write the certificate to .*certs/);
    });
  });
});
