/**
 * One UDP socket. Nothing that comes from the network makes it throw or close: a datagram that
 * cannot be sent (no route, a port that nobody listens on, a firewall) is counted and is gone, as
 * any datagram may be.
 *
 * The queue of what was received and not yet looked at is the kernel's, RECEIVE_QUEUE_BYTES long:
 * when this process is too slow, datagrams are lost there, before they cost anything.
 */
import { createSocket } from "node:dgram";
import type { RemoteInfo, Socket } from "node:dgram";
import { isIPv4, isIPv6 } from "node:net";
import { abortReason, onAbort, throwIfAborted } from "../../base/abort.ts";
import { DaemonError, errorMessage } from "../../base/errors.ts";
import type { Address } from "../membership/index.ts";

/** Bytes; the kernel counts each packet with its own overhead and caps this at rmem_max. */
const RECEIVE_QUEUE_BYTES = 4 * 1024 * 1024;
/** Datagrams given to the kernel that it has not taken yet; more are dropped. */
const SENDING_MAX = 4096;

export interface DatagramSocketOptions {
  /** An IP address; `::` takes IPv4 as well. */
  readonly host: string;
  /** 0: the kernel picks one. */
  readonly port: number;
  /** Must not throw; `from` is as node:net writes addresses, IPv4 never inside IPv6. */
  readonly onPacket: (packet: Uint8Array, from: Address) => void;
  readonly signal: AbortSignal;
}

export interface DatagramCounters {
  received: number;
  receivedBytes: number;
  sent: number;
  sentBytes: number;
  /** Refused by the kernel, or by SENDING_MAX. */
  unsent: number;
  /** The last reason for one of `unsent`. */
  lastError: string | undefined;
}

const MAPPED = "::ffff:";

export class DatagramSocket implements AsyncDisposable {
  readonly counters: DatagramCounters = {
    received: 0,
    receivedBytes: 0,
    sent: 0,
    sentBytes: 0,
    unsent: 0,
    lastError: undefined,
  };
  readonly #socket: Socket;
  readonly #isIPv6: boolean;
  #sending = 0;
  #closed: Promise<void> | undefined;

  /** Throws `invalid-argument` (no IP address), `unavailable` (address or port not to be had). */
  static async open(options: DatagramSocketOptions): Promise<DatagramSocket> {
    const { host, port, signal } = options;
    throwIfAborted(signal);
    if (!isIPv4(host) && !isIPv6(host)) {
      throw new DaemonError("invalid-argument", `not an IP address to listen on: ${host}`);
    }
    const socket = createSocket({
      type: isIPv4(host) ? "udp4" : "udp6",
      // Addresses only: nothing to look up.
      lookup: (address, _options, callback) => {
        callback(null, address, isIPv4(address) ? 4 : 6);
      },
    });
    await new Promise<void>((resolve, reject) => {
      const stopListening = onAbort(signal, () => {
        socket.close();
        reject(abortReason(signal));
      });
      socket.once("error", (error) => {
        stopListening();
        socket.close();
        const message = `listening for packets on ${host} port ${port}`;
        reject(new DaemonError("unavailable", message, { cause: error }));
      });
      socket.bind({ address: host, port, exclusive: true }, () => {
        stopListening();
        resolve();
      });
    });
    return new DatagramSocket(socket, options);
  }

  private constructor(socket: Socket, { host, onPacket }: DatagramSocketOptions) {
    this.#socket = socket;
    this.#isIPv6 = isIPv6(host);
    socket.removeAllListeners("error");
    socket.on("error", (error) => {
      this.counters.lastError = errorMessage(error);
    });
    socket.on("message", (packet: Uint8Array, { address, port }: RemoteInfo) => {
      this.counters.received += 1;
      this.counters.receivedBytes += packet.length;
      onPacket(packet, { host: this.#isIPv6 ? plainHost(address) : address, port });
    });
    try {
      socket.setRecvBufferSize(RECEIVE_QUEUE_BYTES);
    } catch (error) {
      this.counters.lastError = errorMessage(error);
    }
  }

  /** Where it listens. */
  get local(): Address {
    const { address, port } = this.#socket.address();
    return { host: address, port };
  }

  /** Never throws, never waits. */
  send(packet: Uint8Array, to: Address): void {
    if (this.#closed !== undefined) return;
    const host = this.#isIPv6 && isIPv4(to.host) ? `${MAPPED}${to.host}` : to.host;
    const isFit = host.includes(":") === this.#isIPv6;
    if (this.#sending >= SENDING_MAX || !isFit || to.port === 0) {
      this.#unsent(this.#sending >= SENDING_MAX ? "too many waiting" : `no way to ${host}`);
      return;
    }
    this.#sending += 1;
    try {
      this.#socket.send(packet, to.port, host, this.#onSent);
    } catch (error) {
      this.#sending -= 1;
      this.#unsent(errorMessage(error));
    }
  }

  /** One for all packets: a node that is busy sends thousands in a second. */
  readonly #onSent = (error: Error | null, bytes: number): void => {
    this.#sending -= 1;
    if (error === null) {
      this.counters.sent += 1;
      this.counters.sentBytes += bytes;
    } else this.#unsent(errorMessage(error));
  };

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= new Promise((resolve) => {
      this.#socket.close(resolve);
    });
    await this.#closed;
  }

  #unsent(reason: string): void {
    this.counters.unsent += 1;
    this.counters.lastError = reason;
  }
}

function plainHost(address: string): string {
  // A link-local sender comes with its zone, which is ours to know and not to pass on.
  const [host = address] = address.split("%");
  return host.startsWith(MAPPED) && isIPv4(host.slice(MAPPED.length))
    ? host.slice(MAPPED.length)
    : host;
}
