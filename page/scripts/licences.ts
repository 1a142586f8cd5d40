/** Whose code is in the bundle, and on what terms: dist/licences.txt, and the head of the program of a saved view. */
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

const PACKAGE = /^.*[\\/]node_modules[\\/](?:@[^\\/]+[\\/])?[^\\/]+/;

/** A plugin of Vite. `into`: "file", or "head" for the first lines of the program itself. */
export function licences(into: "file" | "head"): Plugin {
  return {
    name: "licences",
    apply: "build",
    generateBundle(_options, bundle) {
      const chunks = Object.values(bundle).filter((part) => part.type === "chunk");
      const folders = chunks.flatMap(({ modules }) => Object.keys(modules)).flatMap((id) => PACKAGE.exec(id.replace(/^\0/, "")) ?? []);
      const text = [...new Set(folders)].sort().map(notice).join("\n");
      if (into === "file") this.emitFile({ type: "asset", fileName: "licences.txt", source: text });
      else for (const chunk of chunks) chunk.code = `/*!\n${text.replaceAll("*/", "* /")}*/\n${chunk.code}`;
    },
  };
}

function notice(folder: string): string {
  const { name, version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { name: string; version: string };
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  if (!file) throw new Error(`${name} comes without its licence`);
  return `${name} ${version}\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
}
