/** The snapshotter's ImageProvider, spoken over control.proto to the image service. */
import { z } from "zod";
import { parseChainId } from "../oci/index.ts";
import type { ChainId } from "../oci/index.ts";
import type { ImageProvider, ImageRequest, ProvidedLayer } from "../snapshotter/index.ts";
import type { RoleClient } from "./role-client.ts";

interface SignalOption {
  readonly signal: AbortSignal;
}

const layersSchema = z.object({
  layers: z.array(
    z
      .object({
        chainId: z.string().transform(parseChainId),
        usageBytes: z.int().min(0),
        usageInodes: z.int().min(0),
      })
      .transform((layer): ProvidedLayer => layer),
  ),
});
const chainInfoSchema = layersSchema.extend({ known: z.boolean() });
const mountSchema = z.object({ path: z.string().startsWith("/") });

export class ImageClient implements ImageProvider {
  readonly #client: RoleClient;

  constructor(client: RoleClient) {
    this.#client = client;
  }

  async ensure(image: ImageRequest, options: SignalOption): Promise<readonly ProvidedLayer[]> {
    const answer = await this.#client.call(
      "Image.Ensure",
      {
        reference: image.reference,
        manifestDigest: image.manifestDigest ?? "",
        chainId: image.chainId,
        manifest: image.manifest ?? new Uint8Array(0),
        config: image.config ?? new Uint8Array(0),
        platform: image.platform ?? "",
        alternatives: image.alternatives,
      },
      options,
    );
    return layersSchema.parse(answer).layers;
  }

  async knows(chainId: ChainId, options: SignalOption): Promise<ProvidedLayer | undefined> {
    const answer = chainInfoSchema.parse(
      await this.#client.call("Image.Knows", { chainId }, options),
    );
    return answer.known ? answer.layers.at(-1) : undefined;
  }

  async mount(chainId: ChainId, options: SignalOption): Promise<string> {
    const answer = await this.#client.call("Image.Mount", { chainId }, options);
    return mountSchema.parse(answer).path;
  }

  async release(chainId: ChainId, options: SignalOption): Promise<void> {
    await this.#client.call("Image.Release", { chainId }, options);
  }

  async retain(chainIds: readonly ChainId[], options: SignalOption): Promise<void> {
    await this.#client.call("Image.Retain", { chainIds }, options);
  }
}
