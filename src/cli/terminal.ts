/** Where commands print: results to stdout, progress and errors to stderr. */

export interface OutputStream {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

export interface Terminal {
  /** One line of the command's result. */
  print(line: string): void;
  /** One line that is not a result: a notice or an error. */
  notice(line: string): void;
  /** Where progress is drawn. */
  readonly progress: OutputStream;
}

/** Columns assumed where the terminal does not say. */
export const COLUMNS_DEFAULT = 80;

/**
 * Texts come from registries and images too: an escape sequence in them must not reach the
 * terminal. Controls but tab and line feed, and changes of direction, are shown as `\x1b`.
 */
export function printable(text: string): string {
  return text.replaceAll(
    /(?![\t\n])\p{Cc}|[\u202a-\u202e\u2066-\u2069]/gu,
    (control) => `\\x${control.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}

export function createTerminal(stdout: OutputStream, stderr: OutputStream): Terminal {
  return {
    print: (line) => {
      stdout.write(`${printable(line)}\n`);
    },
    notice: (line) => {
      stderr.write(`${printable(line)}\n`);
    },
    progress: stderr,
  };
}
