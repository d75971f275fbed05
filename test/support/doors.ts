/** What the doors of modules (src/NAME/index.ts) open, and who takes it. */
import { posix } from "node:path";
import ts from "typescript";
import type { SourceFile } from "./source-files.ts";

const DOOR = /^src\/[^/]+\/index\.ts$/;

function parse({ path, text }: SourceFile): ts.SourceFile {
  return ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
}

/** The file of a relative import, as a path from the package's root. */
function targetOf(from: string, specifier: ts.Expression | undefined): string | undefined {
  if (specifier === undefined || !ts.isStringLiteral(specifier)) return undefined;
  return posix.join(posix.dirname(from), specifier.text);
}

function isExported(statement: ts.Statement): boolean {
  const modifiers = ts.canHaveModifiers(statement) ? ts.getModifiers(statement) : undefined;
  return modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) === true;
}

/** Names that a file re-exports, one by one or all of a file; not what it declares itself. */
function openedBy(file: SourceFile, files: ReadonlyMap<string, SourceFile>): string[] {
  return parse(file).statements.flatMap((statement) => {
    if (!ts.isExportDeclaration(statement)) return [];
    const { exportClause: clause } = statement;
    if (clause !== undefined && ts.isNamedExports(clause)) {
      return clause.elements.map(({ name }) => name.text);
    }
    const target = files.get(targetOf(file.path, statement.moduleSpecifier) ?? "");
    return target === undefined ? [] : [...declaredBy(target), ...openedBy(target, files)];
  });
}

function declaredBy(file: SourceFile): string[] {
  return parse(file).statements.flatMap((statement) => {
    if (!isExported(statement)) return [];
    if (ts.isVariableStatement(statement)) {
      return statement.declarationList.declarations.map(({ name }) => name.getText());
    }
    const { name } = statement as ts.DeclarationStatement;
    return name === undefined ? [] : [name.getText()];
  });
}

/** `door name` of everything that the file imports by name from doors. */
function takenBy(file: SourceFile): string[] {
  return parse(file).statements.flatMap((statement) => {
    if (!ts.isImportDeclaration(statement)) return [];
    const door = targetOf(file.path, statement.moduleSpecifier);
    const bindings = statement.importClause?.namedBindings;
    if (door === undefined || bindings === undefined || !ts.isNamedImports(bindings)) return [];
    return bindings.elements.map(
      ({ name, propertyName }) => `${door} ${(propertyName ?? name).text}`,
    );
  });
}

/** `src/oci/index.ts name` of what a door opens and no other file imports through it. */
export function idleExports(files: readonly SourceFile[]): string[] {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const taken = new Set(files.flatMap(takenBy));
  return files
    .filter(({ path }) => DOOR.test(path))
    .flatMap((door) => openedBy(door, byPath).map((name) => `${door.path} ${name}`))
    .filter((name) => !taken.has(name));
}
