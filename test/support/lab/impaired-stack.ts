/** A stack whose registry is impaired, and whose processes are measured. */
import { Containerd } from "./containerd.ts";
import { FaasnetDaemon, SNAPSHOTTER, type DaemonOptions, type Stack } from "./daemon.ts";
import { ImpairedRegistry } from "./impaired-registry.ts";
import type { Lab } from "./lab.ts";
import { Meter } from "./meter.ts";
import { Registry } from "./registry.ts";

export interface ImpairedStack extends Stack {
  /** What images are pulled from; `registry` is behind it. */
  readonly front: ImpairedRegistry;
  readonly meter: Meter;
}

export async function startImpairedStack(
  lab: Lab,
  options: DaemonOptions = {},
): Promise<ImpairedStack> {
  const registry = await Registry.start(lab);
  const front = await ImpairedRegistry.start(lab, registry.address);
  const daemon = await FaasnetDaemon.create(lab, { knownHosts: [front.address], ...options });
  const containerd = await Containerd.start(lab, {
    line: "2",
    snapshotter: { name: SNAPSHOTTER, address: daemon.address, root: daemon.root },
  });
  await daemon.start(containerd.address);
  const meter = lab.use(new Meter(lab.folder));
  return { registry, front, daemon, containerd, meter };
}
