// How much a browser fetches, gzipped: for the first view, for all views, and when a view is saved, which is the same
// program once more, as one script. Fails above what was promised.
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const DIST = new URL("../dist/", import.meta.url).pathname;
const MOST = { first: 150, all: 300, saved: 200 }; // KB, of 1024 bytes

const files = readdirSync(DIST, { recursive: true })
  .map(String)
  .filter((name) => statSync(join(DIST, name)).isFile())
  .map((name) => ({ name, size: gzipSync(readFileSync(join(DIST, name)), { level: 9 }).length / 1024 }));

// The first view is the page itself and whatever it names; other chunks are fetched when their view is opened.
const html = readFileSync(join(DIST, "index.html"), "utf8");
const isFirst = ({ name }) => name === "index.html" || html.includes(name.replaceAll("\\", "/"));
const isSaved = ({ name }) => name.startsWith("saved.");
const NAMES = { first: "first view", all: "all views", saved: "to save a view" };
const sum = (some) => some.reduce((total, file) => total + file.size, 0);
const total = { first: sum(files.filter(isFirst)), all: sum(files.filter((file) => !isSaved(file))), saved: sum(files.filter(isSaved)) };

for (const file of files) {
  console.log(`${file.size.toFixed(1).padStart(8)} KB gz  ${isFirst(file) ? "first" : isSaved(file) ? "saved" : "later"}  ${file.name}`);
}
for (const [part, name] of Object.entries(NAMES)) {
  console.log(`${total[part].toFixed(1).padStart(8)} KB gz  ${name} (at most ${MOST[part]})`);
}
if (Object.keys(NAMES).some((part) => total[part] > MOST[part])) {
  console.error("The page is larger than was promised: find what was added, or load it later with import().");
  process.exit(1);
}
