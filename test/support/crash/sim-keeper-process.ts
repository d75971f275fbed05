/**
 * The keeper as a process of the simulation: the product's data devices and fetch queue behind the
 * product's control connection; only FUSE and read(2) are simulated.
 */
import { DaemonError } from "../../../src/base/errors.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { ControlConnection } from "../../../src/control/index.ts";
import type { Handlers } from "../../../src/control/index.ts";
import { FetchQueue } from "../../../src/keeper/fetch-queue.ts";
import { LayerDevice } from "../../../src/keeper/layer-device.ts";
import type { DecodedFile } from "../../../src/keeper/layer-device.ts";
import { parseRanges, parseServeLayer } from "../../../src/keeper/messages.ts";
import { TouchedLog } from "../../../src/keeper/touched-log.ts";
import type { Owner, Scheduler } from "./scheduler.ts";
import type { SimDisk } from "./sim-disk.ts";
import { systemError } from "./sim-disk.ts";
import { simWire } from "./sim-wire.ts";

export class SimKeeperProcess {
  readonly owner: Owner = { isDead: false };
  readonly #scheduler: Scheduler;
  readonly #disk: SimDisk;
  readonly #queue: FetchQueue;
  readonly #devices = new Map<string, LayerDevice>();
  readonly #counters = { reads: 0, readsPresent: 0, readsMissed: 0, bytes: 0 };

  constructor(scheduler: Scheduler, disk: SimDisk) {
    this.#scheduler = scheduler;
    this.#disk = disk;
    this.#queue = new FetchQueue({ clock: scheduler.clock(this.owner), log: silentLogger });
  }

  get counters(): { readonly readsPresent: number; readonly readsMissed: number } {
    return this.#counters;
  }

  /** A connection of an image service; the result is the image service's end. */
  accept(client: Owner, handlers: Handlers): { close: () => void; connection: ControlConnection } {
    const [ours, theirs] = simWire(this.#scheduler, this.owner, client);
    new ControlConnection(ours, this.#handlers());
    return {
      connection: new ControlConnection(theirs, handlers),
      // What the kernel does with a dead process' socket.
      close: () => theirs.destroy(),
    };
  }

  /** What a container reads. */
  async read(layer: string, offset: number, length: number): Promise<Buffer> {
    const device = this.#devices.get(layer);
    if (device === undefined) throw new Error(`layer ${layer} is not served`);
    const buffer = Buffer.alloc(length, 0xee);
    const bytes = await device.read(buffer, offset);
    return buffer.subarray(0, bytes);
  }

  /** As `Keeper.handlers` does it; without mounts. */
  #handlers(): Handlers {
    return {
      "Keeper.Hello": (_request, { connection }) => {
        this.#queue.attach(connection);
        void connection.closed.then(() => {
          this.#queue.detach(connection);
        });
        const layers = [...this.#devices.keys()].map((layer) => ({ layer, mountpoint: "" }));
        const hello = { version: "1", pid: process.pid, instance: "keeper", layers, trees: [] };
        return Promise.resolve(hello);
      },
      "Keeper.ServeLayer": async (request, { connection }) => {
        this.#assertCurrent(connection);
        const service = parseServeLayer(request);
        let device = this.#devices.get(service.layer);
        if (device === undefined) {
          device = new LayerDevice(service, {
            layer: service.layer,
            queue: this.#queue,
            touched: new TouchedLog(),
            counters: this.#counters,
            log: silentLogger,
            openFile: (path) => this.#open(path),
          });
          this.#devices.set(service.layer, device);
        }
        await device.serve(service);
        return {};
      },
      "Keeper.Present": (request, { connection }) => {
        this.#assertCurrent(connection);
        const { layer, ranges } = parseRanges(request);
        this.#devices.get(layer)?.addPresent(ranges);
        return Promise.resolve({});
      },
      "Keeper.Drop": async (request, { connection }) => {
        this.#assertCurrent(connection);
        const { layer, ranges } = parseRanges(request);
        await this.#devices.get(layer)?.drop(ranges);
        return {};
      },
    };
  }

  #assertCurrent(connection: ControlConnection): void {
    if (this.#queue.link === connection) return;
    throw new DaemonError("failed-precondition", "another image service has taken over");
  }

  async #open(path: string): Promise<DecodedFile> {
    await this.#scheduler.turn(this.owner);
    const inode = this.#disk.inode(path);
    if (inode === undefined) throw systemError("ENOENT", path);
    return {
      read: async (target, at, length, position) => {
        await this.#scheduler.turn(this.owner);
        // One read(2) may be cut short anywhere; what it copies, it copies at one moment.
        const end = Math.min(position + length, inode.view.size);
        const bytes = Math.max(0, end - position);
        const some = bytes > 1 && this.#scheduler.random.oneIn(2) ? bytes >> 1 : bytes;
        inode.view.bytes.copy(target, at, position, position + some);
        await this.#scheduler.turn(this.owner);
        return some;
      },
      close: () => Promise.resolve(),
    };
  }
}
