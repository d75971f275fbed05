/** Equality as a property: generated images, the kernel's trees of them, and ours. */
export {
  describeCounterexample,
  EqualitySession,
  imagesOf,
  shrink,
  type Counterexample,
} from "./check.ts";
export { imageArbitrary, type Image } from "./image.ts";
