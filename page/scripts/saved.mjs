// The program that "Save this view" puts into a file: one classic script that names no address which could be fetched.
import { readFileSync } from "node:fs";
import { Script } from "node:vm";

const read = (name) => readFileSync(new URL(`../dist/${name}`, import.meta.url), "utf8");
const [script, style] = [read("saved.js"), read("saved.css")];

new Script(script); // a module's import or export would be refused here
const code = script.slice(script.indexOf("*/")); // after the licences, which name their authors' addresses
const addresses = [...new Set(code.match(/https?:\/\/[^\s"'`)\\]+/g) ?? [])];
// The names of SVG, HTML and MathML, and where Svelte explains its errors: names, which nothing fetches.
const fetched = addresses.filter((address) => !/^https?:\/\/(www\.w3\.org\/|svelte\.dev\/e\/)/.test(address));
const wrong = [
  ...fetched.map((address) => `saved.js names ${address}`),
  ...(/\bimport\s*\(/.test(code) ? ["saved.js imports another file"] : []),
  ...(/url\((?!\s*['"]?(data:|#))|@import/i.test(style) ? ["saved.css names another file"] : []),
];
if (wrong.length > 0) {
  console.error(`A saved page would not be whole: ${wrong.join("; ")}`);
  process.exit(1);
}
