/** `faasnet tree [IMAGE]`: who feeds whom, drawn in the terminal. */
import type { Command } from "commander";
import type { TreeMemberReport, TreeReport, TreesReport } from "../../daemon/index.ts";
import { addCommand, connectDaemon, jsonOption, printJson } from "../command-context.ts";
import type { CommandContext, JsonOptions, PlaceOptions } from "../command-context.ts";
import { formatBytes, formatCount, formatPercent, formatTable, shortDigest } from "../format.ts";

export function addTreeCommand(program: Command, context: CommandContext): void {
  addCommand(program, "tree", {
    description:
      "Show the function trees: who is root, who feeds whom, blocks held, bytes in and out. IMAGE " +
      "is a reference, a manifest digest or its beginning; without it all trees of this node.",
    examples: [
      "faasnet tree",
      "faasnet tree docker.io/library/debian:12 --json | jq .trees[0].root",
    ],
  })
    .argument("[image]", "one image")
    .addOption(jsonOption())
    .action(async (image: string | undefined, options: PlaceOptions & JsonOptions) => {
      await using client = await connectDaemon(context, options);
      const report = await client.trees(image ?? "", { signal: context.signal });
      if (options.json === true) printJson(context, report);
      else for (const line of treesLines(report)) context.terminal.print(line);
    });
}

/** For people: each tree with its head, its members drawn, and this node's sources. */
export function treesLines(report: TreesReport): string[] {
  if (!report.enabled) return ["peers are off: [peer] enabled = true turns them on"];
  if (report.trees.length === 0) return ["no tree: no image is in use here"];
  return report.trees.flatMap((tree, index) => [
    ...(index === 0 ? [] : [""]),
    ...treeLines(tree, report.self),
  ]);
}

function treeLines(tree: TreeReport, self: string): string[] {
  const name = tree.reference === "" ? "" : `${tree.reference}  `;
  const { counter, manager } = tree.epoch;
  const part = tree.isWhole ? "" : `; ${formatCount(tree.members.length)} of them known here`;
  return [
    `${name}${shortDigest(tree.image)}`,
    `${formatCount(tree.size)} members, root ${tree.root}, manager ${manager}, ` +
      `epoch ${formatCount(counter)}${part}`,
    ...drawn(tree, self),
    sourcesLine(tree),
  ];
}

function drawn(tree: TreeReport, self: string): string[] {
  const rows = [...branches(tree)].map(({ line, member }) => [
    member.name === self ? `${line} *` : line,
    member.zone === "" ? "-" : member.zone,
    formatCount(member.blocksHeld),
    formatPercent(member.blocksHeld, tree.blocks),
    bytesOf(member.bytesIn),
    bytesOf(member.bytesOut),
  ]);
  return formatTable(
    [
      { title: "MEMBER (* this node)" },
      { title: "ZONE" },
      { title: "BLOCKS", align: "right" },
      { title: "HELD", align: "right" },
      { title: "IN", align: "right" },
      { title: "OUT", align: "right" },
    ],
    rows,
  );
}

function bytesOf(bytes: number | null): string {
  return bytes === null ? "-" : formatBytes(bytes);
}

interface Branch {
  readonly line: string;
  readonly member: TreeMemberReport;
}

/**
 * Every member once, its children below it. A member whose parent is not in the report, or that
 * hangs in a loop (a report taken while the tree changed), begins a branch of its own.
 */
function branches(tree: TreeReport): Branch[] {
  const names = new Set(tree.members.map(({ name }) => name));
  const ordered = inOrder(tree.members);
  const children = new Map<string | null, TreeMemberReport[]>();
  for (const member of ordered) {
    const siblings = children.get(member.parent);
    if (siblings === undefined) children.set(member.parent, [member]);
    else siblings.push(member);
  }
  const drawnNames = new Set<string>();
  const out: Branch[] = [];
  const draw = (member: TreeMemberReport, own: string, below: string): void => {
    if (drawnNames.has(member.name)) return;
    drawnNames.add(member.name);
    out.push({ line: `${own}${member.name}`, member });
    const next = children.get(member.name) ?? [];
    for (const [index, child] of next.entries()) {
      const isLast = index === next.length - 1;
      draw(child, `${below}${isLast ? "└─ " : "├─ "}`, `${below}${isLast ? "   " : "│  "}`);
    }
  };
  const tops = ordered.filter(({ parent }) => parent === null || !names.has(parent));
  for (const member of [...tops, ...ordered]) draw(member, "", "");
  return out;
}

function inOrder(members: readonly TreeMemberReport[]): TreeMemberReport[] {
  return members.toSorted(
    (one, other) =>
      compare(one.zone, other.zone) || one.slot - other.slot || compare(one.name, other.name),
  );
}

/** By code units: the same order on every machine. */
function compare(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

function sourcesLine(tree: TreeReport): string {
  const parts = Object.entries(tree.blocksBySource)
    .filter(([, { blocks }]) => blocks > 0)
    .map(([name, { blocks, bytes }]) => {
      const size = bytes === 0 ? "" : ` (${formatBytes(bytes)})`;
      return `${formatCount(blocks)} ${name}${size}`;
    });
  return `this node's blocks: ${parts.join(", ") || "none yet"}`;
}
