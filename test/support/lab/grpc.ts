/** gRPC clients over unix sockets, built from proto files at run time. */
import { credentials, loadPackageDefinition, Metadata } from "@grpc/grpc-js";
import type { ChannelCredentials, Client, ServiceError } from "@grpc/grpc-js";
import { load } from "@grpc/proto-loader";

export type Message = Readonly<Record<string, unknown>>;
type Method = (
  request: Message,
  metadata: Metadata,
  options: { deadline: number },
  callback: (error: ServiceError | null, response: Message) => void,
) => void;
/** A client built from a service definition: one method for each call. */
export type DynamicClient = Client & Readonly<Record<string, Method>>;
type ClientConstructor = new (
  address: string,
  channel: ChannelCredentials,
  options: Message,
) => DynamicClient;

const CALL_TIMEOUT_MS = 120_000;

export async function call(
  client: DynamicClient,
  method: string,
  request: Message,
  options: { readonly timeoutMs?: number; readonly metadata?: Metadata } = {},
): Promise<Message> {
  const deadline = Date.now() + (options.timeoutMs ?? CALL_TIMEOUT_MS);
  return new Promise((resolve, reject) => {
    const metadata = options.metadata ?? new Metadata();
    client[method]?.(request, metadata, { deadline }, (error, response) => {
      if (error === null) resolve(response);
      else reject(new Error(`${method}: ${error.message}`, { cause: error }));
    });
  });
}

/** The services of proto files, by full name. */
export async function loadServices(
  files: readonly string[],
  includeDirs: readonly string[],
): Promise<(service: string) => ClientConstructor> {
  const definition = await load([...files], {
    keepCase: true,
    enums: String,
    longs: Number,
    defaults: true,
    includeDirs: [...includeDirs],
  });
  const root = loadPackageDefinition(definition);
  return (service) => {
    let node: unknown = root;
    for (const part of service.split(".")) node = (node as Record<string, unknown>)[part];
    if (typeof node !== "function") throw new Error(`no service ${service}`);
    return node as ClientConstructor;
  };
}

/** The authority is a name: some servers refuse a socket path there. */
export function openClient(service: ClientConstructor, socket: string): DynamicClient {
  return new service(`unix://${socket}`, credentials.createInsecure(), {
    "grpc.default_authority": "localhost",
    "grpc.max_receive_message_length": 16 * 1024 * 1024,
  });
}
