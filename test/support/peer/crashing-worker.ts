/** In place of a node's worker: it is ready at once, and ends when it is told to join. */
import { parentPort, workerData } from "node:worker_threads";
import type { FromWorker, ToWorker, WorkerStart } from "../../../src/peer/node/port-protocol.ts";

const { id } = (workerData as WorkerStart).config;
const address = { host: "127.0.0.1", port: 1 };
const self = { id, boot: "0".repeat(32), address, exchangePort: 0, zone: "", version: 1 };

function post(message: FromWorker): void {
  parentPort?.postMessage(message);
}

parentPort?.on("message", (message: ToWorker) => {
  if (message.kind === "held") throw new Error("a defect");
  if (message.kind === "join") {
    const { image } = message;
    const place = { zone: "", slot: 0, depth: 0, root: self, isRoot: true, size: 1, children: 0 };
    const epoch = { counter: 1, manager: id };
    post({ kind: "position", image, position: { image, epoch, ...place } });
  }
  if (message.kind === "stop") parentPort?.close();
});
post({ kind: "ready", self });
