/** Images resolved with documents that the cluster shares. */
import type { Descriptor } from "../../oci/index.ts";
import { parseImageLocation, resolveReference } from "../../registry/index.ts";
import type { ResolvedImage } from "../../registry/index.ts";
import type { ResolvePlace } from "../image-resolver.ts";
import type { ImageSources } from "../image-sources.ts";
import type { DocumentOwner } from "./document-owner.ts";

/** The platform is chosen here; archives are read as ever. */
export function resolveShared(
  documents: Pick<DocumentOwner, "get">,
  sources: Pick<ImageSources, "get">,
): ResolvePlace {
  return async (place, options): Promise<ResolvedImage> => {
    const location = parseImageLocation(place);
    if (location.transport !== "registry") return (await sources.get(place)).resolve(options);
    const { domain: registry, repository: name } = location.reference;
    const repository = {
      manifest: async (reference: string) =>
        documents.get({ kind: "manifest", registry, name, reference }, options),
      config: async ({ digest }: Descriptor) =>
        (await documents.get({ kind: "config", registry, name, reference: digest }, options)).bytes,
    };
    return resolveReference(location.reference, repository, options);
  };
}
