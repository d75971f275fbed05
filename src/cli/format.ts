/** Numbers and tables for people. `--json` has the exact numbers. */

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB", "PB"] as const;

/** Decimal units, three significant digits: `45.2 MB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // 999.5 would be shown as 1000.
  while (value >= 999.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${value.toFixed(digits)} ${BYTE_UNITS[unit] ?? ""}`;
}

/** `1,234,567` */
export function formatCount(count: number): string {
  return count.toLocaleString("en-US");
}

/** `0:09`, `12:30`, `1:02:03`, `3d 4h`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const days = Math.floor(whole / 86_400);
  const hours = Math.floor(whole / 3600) % 24;
  if (days > 0) return `${days}d ${hours}h`;
  const two = (value: number): string => `${value}`.padStart(2, "0");
  const minutes = Math.floor(whole / 60) % 60;
  const rest = two(whole % 60);
  return hours > 0 ? `${hours}:${two(minutes)}:${rest}` : `${minutes}:${rest}`;
}

/** Part of the whole in percent, rounded down: 100 means complete. Nothing is complete. */
export function formatPercent(part: number, whole: number): string {
  return `${whole <= 0 ? 100 : Math.floor(Math.min(1, part / whole) * 100)}%`;
}

/** `sha256:0123456789ab`: enough to recognize; `--json` has it whole. */
export function shortDigest(digest: string): string {
  return digest.slice(0, "sha256:".length + 12);
}

export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
}

/** Columns as wide as their widest cell, two blanks between, no blanks at the end of a line. */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): string[] {
  const table = [columns.map(({ title }) => title), ...rows];
  const widths = columns.map((_, index) =>
    Math.max(...table.map((row) => (row[index] ?? "").length)),
  );
  return table.map((row) =>
    columns
      .map(({ align }, index) => {
        const cell = row[index] ?? "";
        const width = widths[index] ?? 0;
        return align === "right" ? cell.padStart(width) : cell.padEnd(width);
      })
      .join("  ")
      .trimEnd(),
  );
}

/** `name value` lines with the values aligned. */
export function formatFields(fields: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...fields.map(([name]) => name.length));
  return fields.map(([name, value]) => `${name.padEnd(width)}  ${value}`.trimEnd());
}
