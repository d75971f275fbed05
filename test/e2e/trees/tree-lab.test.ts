/**
 * The lab of many nodes does to them what it says, and leaves nothing: else its tests prove
 * little.
 */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import {
  Lab,
  Registry,
  clearAbandoned,
  eventually,
  expectedTree,
  labImage,
  needs,
  processesOf,
  run,
} from "../../support/lab/index.ts";
import {
  TreeLab,
  clearAbandonedNetworks,
  freeze,
  killNode,
  killServer,
  parseReadLog,
  readerProgram,
  skewClock,
  thaw,
  untilServing,
  writeFileList,
  type TreeNode,
} from "../../support/tree-lab/index.ts";

const COMMANDS = [
  "ip",
  "tc",
  "iptables-restore",
  "busybox",
  "docker-registry",
  "runc",
  "gcc",
  "curl",
];

async function namespacesOf(pid: number): Promise<readonly string[]> {
  const names = await readdir("/run/netns").catch(() => []);
  return names.filter((name) => name.startsWith(`fnt${pid}-`));
}

describe("The lab of many nodes", function () {
  this.timeout(180_000);
  let lab: Lab;
  let tree: TreeLab;

  before(async function () {
    const images = ["busybox", "debian"] as const;
    needs(this, { root: true, fuse: true, program: true, commands: COMMANDS, images });
    lab = await Lab.create();
    tree = await TreeLab.create(lab, { nodes: 3, peers: false });
  });

  after(async () => {
    await lab[Symbol.asyncDispose]();
    assert.deepEqual(await namespacesOf(process.pid), []);
  });

  /** A command in a node's namespace; whether it succeeded. */
  async function inside(from: number, ...command: readonly string[]): Promise<boolean> {
    const [enter = "", ...args] = [...tree.node(from).host.wrapper, ...command];
    return (await run(enter, args, { allowFailure: true })).status === 0;
  }

  async function reaches(from: number, address: string): Promise<boolean> {
    return inside(from, "busybox", "ping", "-c", "1", "-W", "1", address);
  }

  const addressOf = (index: number): string => tree.node(index).host.address;

  /** Seconds to read the first layer of an image whole. */
  async function download(from: number, image: "busybox" | "debian"): Promise<number> {
    const [layer] = labImage(image).layers;
    const url = `http://${tree.registry.address}/v2/${image}/blobs/${layer?.digest ?? ""}`;
    const startedMs = performance.now();
    assert.ok(await inside(from, "busybox", "wget", "-q", "-O", "/dev/null", url));
    return (performance.now() - startedMs) / 1000;
  }

  describe("its network", () => {
    afterEach(async () => {
      await tree.network.heal();
      await tree.network.shapeRegistry("1gbit");
      tree.registry.resume();
    });

    it("joins the nodes and the registry, and nobody else", async () => {
      assert.ok(await reaches(0, addressOf(1)));
      assert.ok(await reaches(1, tree.network.registry.address));
      assert.equal(await reaches(0, "192.0.2.1"), false);
      const routes = await run("ip", ["route", "get", addressOf(0)], { allowFailure: true });
      assert.doesNotMatch(routes.stdout, /br0/);
    });

    it("pulls a cable and puts it in again", async () => {
      await tree.network.setLink(1, "down");

      assert.equal(await reaches(0, addressOf(1)), false);
      assert.ok(await reaches(0, addressOf(2)));

      await tree.network.setLink(1, "up");

      assert.ok(await reaches(0, addressOf(1)));
    });

    it("loses a share of a node's packets", async () => {
      await tree.network.setLoss(1, 0.5);

      const answers: boolean[] = [];
      for (let tries = 0; tries < 4; tries += 1) {
        answers.push(
          ...(await Promise.all(Array.from({ length: 10 }, () => reaches(0, addressOf(1))))),
        );
      }

      // A request and its answer pass at 0.25: all or none of 40 does not happen by chance.
      assert.ok(answers.includes(true) && answers.includes(false), answers.join(" "));
    });

    it("parts the nodes and leaves them the registry", async () => {
      await tree.network.partition([0, 1]);

      assert.ok(await reaches(0, addressOf(1)));
      assert.equal(await reaches(0, addressOf(2)), false);
      assert.equal(await reaches(2, addressOf(1)), false);
      assert.ok(await reaches(0, tree.network.registry.address));
      assert.ok(await reaches(2, tree.network.registry.address));
    });

    it("blocks one protocol of a node", async () => {
      const url = `http://${tree.registry.address}/v2/`;
      const fetches = () => inside(0, "curl", "-sf", "-m", "1", url);
      assert.ok(await fetches());
      await tree.network.block(0, "tcp");

      const startedMs = performance.now();
      assert.equal(await fetches(), false);

      assert.ok(performance.now() - startedMs > 900, "the sender was told");
      assert.ok(await reaches(0, addressOf(1)));
    });

    it("makes the registry slow", async () => {
      const [layer] = labImage("busybox").layers;
      const quick = await download(0, "busybox");
      await tree.registry.limitRate("4mbit");

      const slow = await download(0, "busybox");

      const expected = ((layer?.size ?? 0) - 32_768) / 500_000;
      assert.ok(slow > expected * 0.8 && slow > quick, `${slow} s, ${quick} s unshaped`);
    });

    it("makes the registry silent, then slow", async () => {
      const quick = await download(0, "busybox");
      const stalled = tree.registry.stall(1500, "8mbit");

      const took = await download(0, "busybox");

      await stalled;
      assert.ok(took > quick + 1, `${took} s`);
    });

    it("counts bytes of bodies exactly, and bytes on the wire", async () => {
      const [layer] = labImage("debian").layers;
      const size = layer?.size ?? 0;
      const mark = await tree.registry.mark();
      const [before] = await tree.network.wireBytes();

      await download(0, "debian");

      const sent = (await tree.registry.entries(mark)).map(({ bytesSent }) => bytesSent);
      assert.deepEqual(sent, [size]);
      const [after] = await tree.network.wireBytes();
      const received = (after?.received ?? 0) - (before?.received ?? 0);
      assert.ok(received > size && received < size * 1.1, `${received} of ${size}`);
    });
  });

  describe("its nodes", () => {
    let node: TreeNode;
    let other: TreeNode;

    before(async () => {
      [node, other] = [tree.node(0), tree.node(1)];
      await tree.makeMaps("debian", [node, other]);
      await tree.start([node, other]);
    });

    const reference = (): string => tree.registry.reference("debian");

    async function answers(of: TreeNode): Promise<boolean> {
      const late = sleep(500).then(() => false);
      const status = of.status().then(
        () => true,
        () => false,
      );
      return Promise.race([status, late]);
    }

    it("run real containers on what they fetch lazily", async () => {
      const mount = await node.mount("debian", reference());
      const mark = await tree.registry.mark();

      const { stdout } = await node.run(mount, ["/bin/sh", "-c", "cat /etc/debian_version"]);

      assert.match(stdout, /^\d+\.\d+\n$/);
      const entries = await tree.registry.entries(mark);
      assert.ok(entries.length > 0 && entries.every(({ status }) => status === 206));
    });

    it("freeze and go on", async () => {
      await freeze(other);
      assert.equal(await answers(other), false);
      await thaw(other);

      await untilServing(other);
    });

    it("have a reader that shows a stall, to the millisecond, and right bytes", async () => {
      const mount = await node.mount("debian", reference());
      const oracle = await expectedTree(lab, await Registry.start(lab), "debian");
      const choice = { from: 50_000, to: 2_000_000, totalBytes: 20_000_000, seed: 1 };
      const list = await writeFileList(lab, oracle, choice);
      const reader = await readerProgram();
      const reading = node.run(mount, [reader, "-p", "2000", list.file], {
        binds: [reader, list.file],
      });
      await sleep(700);
      tree.registry.pause();
      await sleep(1000);
      tree.registry.resume();

      const log = parseReadLog((await reading).stdout);

      assert.deepEqual(log.errors, []);
      assert.deepEqual(log.digests, list.digests);
      assert.ok(log.maxMs > 700 && log.slow.some(({ latencyMs }) => latencyMs === log.maxMs));
    });

    it("serve again after kill -9 of the role that serves, and readers wait", async () => {
      const mount = await node.mount("debian", reference());
      const before = await node.roles();
      await killServer(node);

      const ran = await node.run(mount, ["/bin/sh", "-c", "cat /usr/bin/* | wc -c"]);

      assert.match(ran.stdout, /^\d{7,}\n$/, ran.stderr);
      await untilServing(node);
      assert.notEqual((await node.roles()).get("image-service"), before.get("image-service"));
      assert.equal((await node.roles()).get("keeper"), before.get("keeper"));
    });

    it("are gone after kill -9 of everything", async () => {
      await killNode(other);

      assert.equal((await other.roles()).size, 0);
      assert.equal(await answers(other), false);
    });

    it("have a clock of their own", async () => {
      const skewed = tree.node(2);
      skewClock(skewed, 3_600_000);
      await skewed.start();

      const times = (await readFile(skewed.logFile, "utf8"))
        .split("\n")
        .flatMap((line) => (line.startsWith("{") ? [line] : []))
        .map((line) => (JSON.parse(line) as { readonly time: string | number }).time)
        .map((time) => new Date(time).getTime() - Date.now());

      assert.ok(times.length > 0);
      assert.ok(
        times.every((ahead) => ahead > 3_400_000 && ahead < 3_700_000),
        times.join(" "),
      );
    });
  });

  it("has a server that lies when it is told to", async () => {
    const [file, key, certificate] = ["lie", "key", "cert"].map((name) => lab.path(name));
    const make = ["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=lab"];
    await run("openssl", [...make, "-keyout", key ?? "", "-out", certificate ?? ""]);
    const serve = [
      'import { createServer } from "node:https";',
      'import { readFileSync } from "node:fs";',
      `const [key, cert] = ["${key ?? ""}", "${certificate ?? ""}"].map((path) => readFileSync(path));`,
      "const data = Buffer.alloc(65536, 7);",
      "const server = createServer({ key, cert }, (_, answer) => answer.end(data));",
      'server.listen(0, "127.0.0.1", () => console.log(server.address().port));',
    ].join("\n");
    const preload = new URL("../../support/tree-lab/lying-server.js", import.meta.url).href;
    const child = spawn(process.execPath, ["--import", preload, "--input-type=module"], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, ...lab.env, FAASNET_LIE: file },
    });
    lab.defer(() => {
      child.kill("SIGKILL");
    });
    child.stdin.end(serve);
    const [port] = (await once(child.stdout, "data")) as [Buffer];
    const url = `https://127.0.0.1:${port.toString().trim()}/`;
    const wrong = async (): Promise<number> => {
      const { stdoutBytes } = await run("curl", ["-skf", url]);
      assert.equal(stdoutBytes.length, 65_536);
      return stdoutBytes.filter((byte) => byte !== 7).length;
    };
    assert.equal(await wrong(), 0);

    await writeFile(file ?? "", "");

    assert.equal(await wrong(), 1);
  });
});

describe("A demonstration of many nodes that does not end by itself", function () {
  this.timeout(120_000);
  const program = new URL("../../../scripts/demo-tree.js", import.meta.url);

  before(function () {
    const images = ["busybox"] as const;
    needs(this, { root: true, fuse: true, program: true, commands: COMMANDS, images });
  });

  /** Runs until a daemon of its runs. */
  async function begin(): Promise<ChildProcess> {
    const options = ["--no-peers", "--nodes", "2", "--image", "busybox"];
    const child = spawn(process.execPath, [program.pathname, ...options], { stdio: "ignore" });
    await eventually(
      "a daemon runs",
      async () => (await of(child)).some(({ command }) => command.includes("keeper-process")),
      { timeoutMs: 60_000, everyMs: 100 },
    );
    return child;
  }

  const of = (child: ChildProcess) => processesOf(`/tmp/fnlab-${child.pid ?? 0}-`);

  it("clears everything away on ctrl-C", async () => {
    const child = await begin();
    const ended = once(child, "exit");
    child.kill("SIGINT");

    const [status] = (await ended) as [number];

    assert.equal(status, 130);
    assert.deepEqual(await of(child), []);
    assert.deepEqual(await namespacesOf(child.pid ?? 0), []);
  });

  it("is cleared away by the next one after kill -9", async () => {
    const child = await begin();
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
    assert.ok((await namespacesOf(child.pid ?? 0)).length > 0);

    await clearAbandoned();
    await clearAbandonedNetworks();

    assert.deepEqual(await of(child), []);
    assert.deepEqual(await namespacesOf(child.pid ?? 0), []);
    const folders = await readdir("/tmp");
    assert.deepEqual(
      folders.filter((name) => name.startsWith(`fnlab-${child.pid ?? 0}-`)),
      [],
    );
  });
});
