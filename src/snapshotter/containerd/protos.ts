/** containerd's services as grpc-js wants them, each loaded when it is first needed. */
import { loadSync } from "@grpc/proto-loader";
import type { MessageTypeDefinition, ServiceDefinition } from "@grpc/proto-loader";
import { protoPath } from "../../base/package-root.ts";
import { DaemonError } from "../../base/errors.ts";

const FILES = {
  "containerd.services.snapshots.v1.Snapshots": "services/snapshots/v1/snapshots.proto",
  "containerd.services.content.v1.Content": "services/content/v1/content.proto",
  "containerd.services.images.v1.Images": "services/images/v1/images.proto",
  "containerd.services.introspection.v1.Introspection":
    "services/introspection/v1/introspection.proto",
  "containerd.services.namespaces.v1.Namespaces": "services/namespaces/v1/namespace.proto",
} as const;

export type ServiceName = keyof typeof FILES;

const loaded = new Map<ServiceName, ServiceDefinition>();

function isService(
  definition: ServiceDefinition | MessageTypeDefinition<object, object> | object,
): definition is ServiceDefinition {
  return !("format" in definition);
}

export function containerdService(name: ServiceName): ServiceDefinition {
  const known = loaded.get(name);
  if (known !== undefined) return known;
  const definitions = loadSync(protoPath(`containerd/${FILES[name]}`), {
    keepCase: true,
    // Sizes and seconds are below 2^53.
    longs: Number,
    defaults: true,
    arrays: true,
    objects: true,
    includeDirs: [protoPath(".")],
  });
  const service = definitions[name];
  if (service === undefined || !isService(service)) {
    throw new DaemonError("internal", `proto file of ${name} does not define it`);
  }
  loaded.set(name, service);
  return service;
}
