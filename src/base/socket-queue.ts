/**
 * What the kernel holds of a TCP connection's outgoing bytes, which Node does not tell: it knows a
 * write as done when the kernel has taken it, and the kernel takes megabytes for a slow link.
 */
import type { Socket } from "node:net";

/** Source: asm-generic/ioctls.h (TIOCOUTQ; tcp(7) calls it SIOCOUTQ). */
const SIOCOUTQ = 0x5411;
/** Source: netinet/in.h, netinet/tcp.h. */
const IPPROTO_TCP = 6;
const TCP_NOTSENT_LOWAT = 25;
const INT_BYTES = 4;

type Ioctl = (fd: number, request: number, value: Buffer) => number;
type SetSockOpt = (
  fd: number,
  level: number,
  name: number,
  value: Buffer,
  length: number,
) => number;

export class SocketQueues {
  readonly #ioctl: Ioctl;
  readonly #setsockopt: SetSockOpt;
  readonly #value = Buffer.alloc(INT_BYTES);

  private constructor(ioctl: Ioctl, setsockopt: SetSockOpt) {
    this.#ioctl = ioctl;
    this.#setsockopt = setsockopt;
  }

  /** Undefined where the calls cannot be had. */
  static async open(): Promise<SocketQueues | undefined> {
    try {
      const { default: koffi } = await import("koffi");
      const libc = koffi.load(null);
      const ioctl = libc.func("int ioctl(int, unsigned long, void*)") as Ioctl;
      const options = "int setsockopt(int, int, int, const void*, unsigned int)";
      return new SocketQueues(ioctl, libc.func(options) as SetSockOpt);
    } catch {
      return undefined; // readers' blocks wait longer behind bulk, and nothing else
    }
  }

  /** Bytes that were written and that the other side has not acknowledged; 0 when closed. */
  unackedBytes(socket: Socket): number {
    const fd = fdOf(socket);
    if (fd === undefined || this.#ioctl(fd, SIOCOUTQ, this.#value) < 0) return 0;
    return this.#value.readInt32LE();
  }

  /** The kernel takes no more than so many bytes ahead of what it may send. */
  limitUnsent(socket: Socket, bytes: number): void {
    const fd = fdOf(socket);
    if (fd === undefined) return;
    this.#value.writeInt32LE(bytes);
    // Kernels before 3.12 do not know it; nothing depends on it.
    this.#setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, this.#value, INT_BYTES);
  }
}

/** Node keeps it as `_handle.fd`: of a TLS connection it is that of the TCP connection below. */
function fdOf(socket: Socket): number | undefined {
  const { _handle: handle } = socket as unknown as { _handle?: { readonly fd?: unknown } | null };
  const fd = handle?.fd;
  return typeof fd === "number" && fd >= 0 ? fd : undefined;
}
