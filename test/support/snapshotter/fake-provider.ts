/** An ImageProvider whose images are declared by the test. */
import { DaemonError } from "../../../src/base/errors.ts";
import { raceAbort } from "../../../src/base/abort.ts";
import type { ChainId } from "../../../src/oci/index.ts";
import type { ImageProvider, ImageRequest, ProvidedLayer } from "../../../src/snapshotter/index.ts";

export type FakeCall =
  | { readonly method: "ensure"; readonly image: ImageRequest }
  | { readonly method: "knows" | "mount" | "release"; readonly chainId: ChainId }
  | { readonly method: "retain"; readonly chainIds: readonly ChainId[] };

export class FakeProvider implements ImageProvider {
  readonly calls: FakeCall[] = [];
  /** Chains whose maps are complete, with the folder that mounting them gives. */
  readonly known = new Map<ChainId, string>();
  /** What `ensure` does; by default no image can be lazy. */
  onEnsure: (image: ImageRequest) => Promise<readonly ProvidedLayer[]> = () =>
    Promise.reject(new DaemonError("unimplemented", "layer 0 has an unknown media type"));
  /** Thrown by every call while set. */
  failure: DaemonError | undefined;

  of<M extends FakeCall["method"]>(method: M): Extract<FakeCall, { method: M }>[] {
    return this.calls.filter(
      (call): call is Extract<FakeCall, { method: M }> => call.method === method,
    );
  }

  async ensure(
    image: ImageRequest,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<readonly ProvidedLayer[]> {
    this.#record({ method: "ensure", image });
    return raceAbort(this.onEnsure(image), signal);
  }

  knows(chainId: ChainId): Promise<ProvidedLayer | undefined> {
    return this.#answer({ method: "knows", chainId }, () =>
      this.known.has(chainId) ? provided(chainId) : undefined,
    );
  }

  mount(chainId: ChainId): Promise<string> {
    return this.#answer({ method: "mount", chainId }, () => {
      const path = this.known.get(chainId);
      if (path === undefined) throw new DaemonError("not-found", `no map of ${chainId}`);
      return path;
    });
  }

  release(chainId: ChainId): Promise<void> {
    return this.#answer({ method: "release", chainId }, () => undefined);
  }

  retain(chainIds: readonly ChainId[]): Promise<void> {
    return this.#answer({ method: "retain", chainIds }, () => undefined);
  }

  #record(call: FakeCall): void {
    this.calls.push(call);
    if (this.failure !== undefined) throw this.failure;
  }

  async #answer<T>(call: FakeCall, work: () => T): Promise<T> {
    await Promise.resolve();
    this.#record(call);
    return work();
  }
}

export function provided(chainId: ChainId): ProvidedLayer {
  return { chainId, usageBytes: 1000, usageInodes: 10 };
}
