// How much a browser fetches, gzipped: for the first view and for all views. Fails above what was promised.
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const DIST = new URL("../dist/", import.meta.url).pathname;
const MOST = { first: 150, all: 300 }; // KB, of 1024 bytes

const files = readdirSync(DIST, { recursive: true })
  .map(String)
  .filter((name) => statSync(join(DIST, name)).isFile())
  .map((name) => ({ name, size: gzipSync(readFileSync(join(DIST, name)), { level: 9 }).length / 1024 }));

// The first view is the page itself and whatever it names; other chunks are fetched when their view is opened.
const html = readFileSync(join(DIST, "index.html"), "utf8");
const isFirst = ({ name }) => name === "index.html" || html.includes(name.replaceAll("\\", "/"));
const sum = (some) => some.reduce((total, file) => total + file.size, 0);
const total = { first: sum(files.filter(isFirst)), all: sum(files) };

for (const file of files) {
  console.log(`${file.size.toFixed(1).padStart(8)} KB gz  ${isFirst(file) ? "first" : "later"}  ${file.name}`);
}
for (const part of ["first", "all"]) {
  console.log(`${total[part].toFixed(1).padStart(8)} KB gz  ${part} view${part === "all" ? "s" : ""} (at most ${MOST[part]})`);
}
if (total.first > MOST.first || total.all > MOST.all) {
  console.error("The page is larger than was promised: find what was added, or load it later with import().");
  process.exit(1);
}
