/** The option string of a mount. Names: mount.fuse(8) and libfuse 2.9's `fuse_opt` tables. */
import { DaemonError } from "../base/errors.ts";

/** fuse-native copies the string into a buffer of 1,024 bytes with its closing zero. */
export const OPTION_BYTES_MAX = 1023;
/** What every mount of ours says in /proc/self/mountinfo: source and, as `fuse.faasnet`, type. */
export const FUSE_NAME = "faasnet";
export const FUSE_FS_TYPE = `fuse.${FUSE_NAME}`;
/** libfuse 2 reads requests into 128 KiB; asking for more changes nothing. */
export const READ_BYTES_MAX = 128 * 1024;
/**
 * Requests of one mount that may be unanswered at once. Reads count as background requests in the
 * kernel, and the next one beyond this number waits behind them, present block or not.
 */
export const BACKGROUND_REQUESTS_MAX = 1024;
/**
 * From here on the kernel skips pure read-ahead. That leaves room for others while readers are
 * stalled, and keeps libfuse at some ten threads: it ends idle ones above ten, and fuse-native
 * loses a little memory with every thread that ends (measured: tar of 850 MB three times made 12
 * threads, with a threshold of 128 it made 158, at the same speed).
 */
export const CONGESTION_THRESHOLD = 8;
/** Nothing ever changes under a mount. */
const CACHE_TIMEOUT_SECONDS = 86_400;

export interface FuseMountOptions {
  /** Set-user-ID programs and device nodes work when the mount is a container's root. */
  readonly allowSpecial: boolean;
  /** An SELinux context for all files, passed to the kernel. */
  readonly context?: string | undefined;
}

/** libfuse splits options at commas: one inside a value needs a backslash (fuse_opt.h). */
function escapeOption(value: string): string {
  return value.replace(/[\\,]/g, "\\$&");
}

export function fuseOptionString(options: FuseMountOptions): string {
  const parts = [
    "ro",
    "allow_other",
    "default_permissions",
    "use_ino",
    "kernel_cache",
    `attr_timeout=${CACHE_TIMEOUT_SECONDS}`,
    `entry_timeout=${CACHE_TIMEOUT_SECONDS}`,
    `negative_timeout=${CACHE_TIMEOUT_SECONDS}`,
    `max_read=${READ_BYTES_MAX}`,
    `max_background=${BACKGROUND_REQUESTS_MAX}`,
    `congestion_threshold=${CONGESTION_THRESHOLD}`,
    `fsname=${FUSE_NAME}`,
    `subtype=${FUSE_NAME}`,
  ];
  // libfuse's default is nosuid,nodev.
  if (options.allowSpecial) parts.push("suid", "dev");
  if (options.context !== undefined) {
    if (!/^[\x21-\x7e]+$/.test(options.context) || options.context.includes('"')) {
      throw new DaemonError("invalid-argument", `not an SELinux context: ${options.context}`);
    }
    parts.push(`context="${escapeOption(options.context)}"`);
  }
  const text = `-o${parts.join(",")}`;
  if (Buffer.byteLength(text) > OPTION_BYTES_MAX) {
    throw new DaemonError("invalid-argument", `mount options exceed ${OPTION_BYTES_MAX} bytes`);
  }
  return text;
}
