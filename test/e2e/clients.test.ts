/**
 * Every kind of client starts containers of several images from lazy mounts: through containerd's
 * transfer service, through CRI, and with nothing but `containerd.io/snapshot.ref`.
 */
import assert from "node:assert/strict";
import {
  Cri,
  IMAGE_WORK,
  Lab,
  SNAPSHOTTER,
  labImage,
  needs,
  nerdctlPath,
  pullByRef,
  run,
  startStack,
  type ContainerdLine,
  type ImageWork,
  type LabImageName,
  type Stack,
} from "../support/lab/index.ts";

/** Layers of the image whose blobs containerd has: none, when it asked for none. */
async function fetchedLayers(
  { containerd }: Stack,
  namespace: string,
  work: ImageWork,
): Promise<readonly string[]> {
  const { stdout } = await containerd.ctr(["--namespace", namespace, "content", "ls", "--quiet"]);
  const present = new Set(stdout.split("\n"));
  return labImage(work.image)
    .layers.map((layer) => layer.digest)
    .filter((digest) => present.has(digest));
}

interface Client {
  readonly name: string;
  readonly namespace: string;
  /** Pulls and runs; what the container printed. */
  start(lab: Lab, stack: Stack, reference: string, command: readonly string[]): Promise<string>;
}

const ctr: Client = {
  name: "ctr image pull (transfer service)",
  namespace: "default",
  async start(_lab, { containerd }, reference, command) {
    await containerd.pull(reference, { snapshotter: SNAPSHOTTER });
    return (await containerd.runContainer(reference, command, { snapshotter: SNAPSHOTTER })).stdout;
  },
};

const cri: Client = {
  name: "CRI",
  namespace: "k8s.io",
  async start(lab, { containerd }, reference, command) {
    const client = await Cri.connect(lab, containerd.address);
    const { exitCode, output } = await client.runPod(await client.pull(reference), command);
    assert.equal(exitCode, 0, output);
    return output;
  },
};

const refOnly: Client = {
  name: "a client that passes only snapshot.ref",
  namespace: "default",
  async start(lab, { containerd }, reference, command) {
    const pulled = await pullByRef(lab, containerd.address, reference, SNAPSHOTTER);
    assert.equal(pulled.unpacked, 0);
    return (await containerd.runContainer(reference, command, { snapshotter: SNAPSHOTTER })).stdout;
  },
};

const nerdctl: Client = {
  name: "nerdctl run",
  namespace: "nerdctl",
  async start(lab, { containerd, registry }, reference, command) {
    const place = ["--address", containerd.address, "--namespace", "nerdctl"];
    const data = ["--data-root", lab.path("nerdctl"), "--cgroup-manager", "cgroupfs"];
    const how = ["--insecure-registry", "--snapshotter", SNAPSHOTTER];
    const container = ["run", "--rm", "--net", "none", "--name", containerd.containerId()];
    assert.ok(reference.startsWith(registry.address));
    const args = [...place, ...data, ...how, ...container, reference, ...command];
    return (await run(nerdctlPath, args, { env: lab.env })).stdout;
  },
};

function describeClients(
  line: ContainerdLine,
  clients: readonly Client[],
  images: readonly LabImageName[],
): void {
  const works = IMAGE_WORK.filter(({ image }) => images.includes(image));

  describe(`A lazy start through containerd ${line}`, function () {
    this.timeout(120_000);
    let lab: Lab;
    let stack: Stack;

    before(async function () {
      needs(this, { root: true, fuse: true, program: true, containerd: [line], images });
      lab = await Lab.create();
      stack = await startStack(lab, { line });
    });

    after(async () => {
      await lab[Symbol.asyncDispose]();
    });

    for (const client of clients) {
      for (const work of works) {
        it(`runs real work of ${work.image}, pulled by ${client.name}`, async function () {
          if (client === nerdctl) needs(this, { nerdctl: true });
          const reference = stack.registry.reference(work.image);

          const output = await client.start(lab, stack, reference, work.command);

          assert.match(output, work.prints);
          assert.deepEqual(await fetchedLayers(stack, client.namespace, work), []);
        });
      }
    }
  });
}

// Making the maps of all images takes half a minute: once is enough.
describeClients("2", [ctr, cri], ["pysci", "node", "pg", "busybox", "pause"]);
describeClients("1.7", [refOnly, cri, nerdctl], ["node", "busybox", "pause"]);
describeClients("1.6", [refOnly, cri], ["pg", "busybox", "pause"]);
