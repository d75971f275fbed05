/** Reading decoded protobuf messages: `unknown` until each field has been looked at. */

type Message = Readonly<Record<string, unknown>>;

export function messageOf(value: unknown): Message {
  return typeof value === "object" && value !== null ? (value as Message) : {};
}

export function stringField(message: unknown, name: string): string {
  const value = messageOf(message)[name];
  return typeof value === "string" ? value : "";
}

export function numberField(message: unknown, name: string): number {
  const value = messageOf(message)[name];
  return typeof value === "number" ? value : 0;
}

export function bytesField(message: unknown, name: string): Uint8Array {
  const value = messageOf(message)[name];
  return value instanceof Uint8Array ? value : new Uint8Array(0);
}

export function listField(message: unknown, name: string): readonly unknown[] {
  const value = messageOf(message)[name];
  return Array.isArray(value) ? (value as readonly unknown[]) : [];
}

export function stringsField(message: unknown, name: string): string[] {
  return listField(message, name).filter((value) => typeof value === "string");
}

/** A `map<string, string>`. */
export function mapField(message: unknown, name: string): Map<string, string> {
  const entries = new Map<string, string>();
  for (const [key, value] of Object.entries(messageOf(messageOf(message)[name]))) {
    if (typeof value === "string") entries.set(key, value);
  }
  return entries;
}

const NS_PER_SECOND = 1_000_000_000n;

/** A `google.protobuf.Timestamp` as nanoseconds since the epoch; 0 when absent. */
export function timestampField(message: unknown, name: string): bigint {
  const value = messageOf(messageOf(message)[name]);
  const seconds = numberField(value, "seconds");
  return BigInt(Math.trunc(seconds)) * NS_PER_SECOND + BigInt(numberField(value, "nanos"));
}

/** Source: google/protobuf/timestamp.proto: nanos count forward, also before 1970. */
export function timestampMessage(ns: bigint): object {
  const nanos = ((ns % NS_PER_SECOND) + NS_PER_SECOND) % NS_PER_SECOND;
  return { seconds: Number((ns - nanos) / NS_PER_SECOND), nanos: Number(nanos) };
}
