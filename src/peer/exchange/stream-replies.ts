/** Replies that are one stream: layer maps and fetch orders. */
import { raceAbort } from "../../base/abort.ts";
import { DaemonError, errorCode, errorMessage } from "../../base/errors.ts";
import type { FrameSender } from "./frame-sender.ts";
import { FRAME, indexPayload } from "./frames.ts";
import { MAP_BYTES_MAX, ORDER_ENTRIES_MAX } from "./limits.ts";
import { encodeError } from "./protocol.ts";
import type { ExchangeTarget } from "./protocol.ts";
import type { MapProvider, OrderEntry, OrderProvider } from "./providers.ts";
import { WaitBook } from "./wait-book.ts";

/** Rejects when the reply has to be cut off. */
export async function sendMap(options: {
  readonly target: Extract<ExchangeTarget, { kind: "map" }>;
  readonly maps: MapProvider;
  readonly waits: WaitBook;
  readonly sender: FrameSender;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { target, maps, waits, sender, signal } = options;
  const key = WaitBook.mapKey(target.diffId);
  const leave = waits.enter(key, target.path);
  try {
    const { image, path } = target;
    let map: Awaited<ReturnType<MapProvider["open"]>>;
    try {
      if (waits.isWaitingFor(key, path.at(-1) ?? "")) {
        throw new DaemonError("failed-precondition", "the map is being asked of you");
      }
      map = await raceAbort(maps.open(target.diffId, { signal, image, path }), signal);
    } catch (error) {
      failWith(sender, error);
      return;
    }
    const size = Buffer.alloc(8);
    size.writeBigUInt64BE(BigInt(Math.min(map.size, MAP_BYTES_MAX)));
    sender.frame(FRAME.size, size);
    let sent = 0;
    for await (const piece of map.pieces) {
      if (signal.aborted) return;
      sent += piece.length;
      if (sent > map.size) throw new DaemonError("data-loss", "the map is longer than it was");
      if (!sender.isReady) await untilReady(sender, signal);
      sender.data(piece);
    }
    if (sent !== map.size) throw new DaemonError("data-loss", "the map is shorter than it was");
    sender.finish();
  } finally {
    leave();
    sender[Symbol.dispose]();
  }
}

/** Follows the order until the child leaves. */
export async function sendOrder(options: {
  readonly target: Extract<ExchangeTarget, { kind: "order" }>;
  readonly orders: OrderProvider;
  readonly sender: FrameSender;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { target, orders, sender, signal } = options;
  try {
    let position = target.from;
    for await (const batch of orders.since(target.image, target.from, { signal })) {
      for (let at = 0; at < batch.length; at += ORDER_ENTRIES_MAX) {
        const entries = batch.slice(at, at + ORDER_ENTRIES_MAX);
        if (!sender.isReady) await untilReady(sender, signal);
        sender.frame(FRAME.order, encodeOrder(position, entries));
        position += entries.length;
      }
      if (signal.aborted) return;
    }
    sender.finish();
  } catch (error) {
    if (!signal.aborted) failWith(sender, error);
  } finally {
    sender[Symbol.dispose]();
  }
}

export function failWith(sender: FrameSender, error: unknown): void {
  const reason = new DaemonError(errorCode(error), errorMessage(error));
  sender.frame(FRAME.failed, Buffer.concat([indexPayload(0), encodeError(reason)]));
  sender.finish();
}

async function untilReady(sender: FrameSender, signal: AbortSignal): Promise<void> {
  const ready = new Promise<void>((resolve) => {
    sender.whenReady(resolve);
  });
  await raceAbort(ready, signal);
}

/** Entries grouped by layer, as they follow each other. */
function encodeOrder(at: number, entries: readonly OrderEntry[]): Buffer {
  const groups: [string, number[]][] = [];
  for (const { layerId, block } of entries) {
    const last = groups.at(-1);
    if (last?.[0] === layerId) last[1].push(block);
    else groups.push([layerId, [block]]);
  }
  return Buffer.from(JSON.stringify({ at, blocks: groups }));
}
