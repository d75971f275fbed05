/**
 * Preloaded into one node's processes (`node --import`): its wall clock is $FAASNET_SKEW_MS ahead.
 * Time namespaces move the monotonic clocks alone; this moves what `Date` says.
 */
const skewMs = Number(process.env["FAASNET_SKEW_MS"] ?? 0);
const RealDate = Date;
const now = (): number => RealDate.now() + skewMs;

globalThis.Date = new Proxy(RealDate, {
  construct: (target, args: unknown[], newTarget) =>
    Reflect.construct(target, args.length === 0 ? [now()] : args, newTarget) as Date,
  get: (target, key, receiver) =>
    key === "now" ? now : (Reflect.get(target, key, receiver) as unknown),
});
