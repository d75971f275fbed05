/** Nominal types for strings and numbers; values are made only by a parser beside the brand. */
declare const brand: unique symbol;
export type Brand<T, Name extends string> = T & {
  readonly [brand]: Readonly<Record<Name, true>>;
};
