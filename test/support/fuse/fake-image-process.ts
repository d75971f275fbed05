/**
 * A stand-in for the image service, to be killed: serves one layer to the keeper, copying each
 * block asked for into the decoded file with a delay. Keeps no books: after a restart nothing is
 * present, as after an unclean stop.
 */
import { parseArgs } from "node:util";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { KeeperClient } from "../../../src/rootfs/index.ts";
import { fillDecoded } from "./layer-fixture.ts";

const BLOCK_BYTES = 1 << 20;
const { values } = parseArgs({
  options: {
    socket: { type: "string", default: "" },
    layer: { type: "string", default: "" },
    tar: { type: "string", default: "" },
    decoded: { type: "string", default: "" },
    bytes: { type: "string", default: "0" },
    mountpoint: { type: "string", default: "" },
    delay: { type: "string", default: "0" },
  },
});
const tarBytes = Number(values.bytes);
const files = { tarPath: values.tar, decodedPath: values.decoded, tarBytes };
const client = new KeeperClient({
  socketPath: values.socket,
  clock: systemClock,
  log: silentLogger,
  readWaitMs: 60_000,
  onFetch: async (_layer, range, { signal }) => {
    await systemClock.sleep(Number(values.delay), { signal });
    const start = range.start - (range.start % BLOCK_BYTES);
    const end = Math.min(Math.ceil(range.end / BLOCK_BYTES) * BLOCK_BYTES, tarBytes);
    await fillDecoded(files, { start, end });
    return { present: [{ start, end }] };
  },
});
const { signal } = new AbortController();
await client.serveLayer(
  {
    layerId: values.layer,
    tarBytes,
    decodedPath: values.decoded,
    present: () => [],
    mountpoint: values.mountpoint,
  },
  { signal },
);
process.send?.("ready");
