/** Saves what the page shows as one file. */

import { ApiError } from "./lib/api.ts";
import { download } from "./lib/export.ts";
import { toHash } from "./lib/route.ts";
import { livePage, packed, stillPage } from "./lib/saved.ts";
import { world } from "./world.svelte.ts";

const LIVE = ["chain", "red"];
/** Lessons that ask the server whenever something is changed. */
const STILL = ["landscape"];
/** More numbers than this in the tables of all steps, and only the steps that are shown are kept. */
const MOST_NUMBERS = 500_000;
const KEPT_OF_CANVAS = ["position", "left", "top", "width", "height", "image-rendering", "outline"];

export async function saveView(): Promise<void> {
  const { route, language, t } = world;
  const title = [t(`place.${route.place}`), ...(route.place === "lessons" ? [] : [world.modelA?.title ?? ""]), "GlassGPT"].filter(Boolean).join(" · ");
  const name = `glassgpt-${route.place === "lessons" ? route.lesson : route.place}.html`;
  const date = new Date().toISOString().slice(0, 10);
  const version = world.info?.version ?? "";
  world.player?.note();
  const known = await world.known(MOST_NUMBERS);
  if (route.place === "lessons" ? !STILL.includes(route.lesson) : LIVE.includes(route.place) && known.models.length > 0) {
    const limits = world.info?.limits ?? { max_states: 65536, max_trace_tokens: 0, max_new_tokens: 0 };
    const lessons = Object.fromEntries([...world.lessonReplies].filter(([asked]) => !STILL.includes(asked.split(" ")[0])));
    const [script, style] = await Promise.all([part("saved.js"), part("saved.css")]);
    const saved = packed(known, { info: { version, models: [], limits }, hash: toHash(world.settledRoute), language, mode: world.mode, date, text: world.ownText, lessons });
    return download(name, livePage({ title, language, style, script, saved }), "text/html");
  }
  const style = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules].map(({ cssText }) => cssText)).join("\n");
  const note = t("saved.still", { version, date });
  download(name, stillPage({ title, language, style: style + FRAME, body: stillOf(title, note), theme: world.theme }), "text/html");
}

async function part(name: string): Promise<string> {
  const reply = await fetch(name);
  if (!reply.ok || reply.headers.get("content-type")?.includes("html")) {
    throw new ApiError("missing", `the page was built without ${name}`, "npm run build in page/");
  }
  return reply.text();
}

// ---- a picture of the page ---------------------------------------------------------------------------------------

const FRAME = `
.still { display: grid; grid-template: "top top" auto "main side" auto / minmax(0, 1fr) auto; }
.still > aside { width: 300px; }
.still > header { grid-area: top; padding: 12px 22px; border-bottom: 1px solid var(--line); }
.still .save { display: none; }
.still button { pointer-events: none; }
@media (max-width: 1080px) { .still { grid-template: "top" auto "main" auto "side" auto / minmax(0, 1fr); } .still > aside { width: auto; } }
`;

/** The main view and the numbers beside it, as the browser shows them now. */
function stillOf(title: string, note: string): string {
  const page = document.createElement("div");
  page.className = "still";
  const header = page.appendChild(document.createElement("header"));
  header.appendChild(document.createElement("strong")).textContent = title;
  header.appendChild(document.createElement("p")).textContent = note;
  for (const name of ["main", "aside"]) {
    const original = document.querySelector(name);
    if (original) page.append(frozen(original));
  }
  return page.outerHTML;
}

/** A copy that needs no program: canvases as images, and fields that hold what they held. */
function frozen(original: Element): Node {
  const copy = original.cloneNode(true) as HTMLElement;
  const pairs = [...original.querySelectorAll("*")].map((element, i) => [element, copy.querySelectorAll("*")[i]] as const);
  for (const [from, to] of pairs) {
    if (from instanceof HTMLInputElement) {
      to.setAttribute("value", from.value);
      to.toggleAttribute("checked", from.checked);
    } else if (from instanceof HTMLTextAreaElement) to.textContent = from.value;
    else if (from instanceof HTMLOptionElement) to.toggleAttribute("selected", from.selected);
    if (from instanceof HTMLInputElement || from instanceof HTMLTextAreaElement || from instanceof HTMLSelectElement) to.toggleAttribute("disabled", true);
    if (from instanceof HTMLButtonElement) to.setAttribute("aria-disabled", "true");
  }
  for (const [from, to] of pairs) if (from instanceof HTMLCanvasElement) to.replaceWith(imageOf(from));
  return copy;
}

function imageOf(canvas: HTMLCanvasElement): HTMLImageElement {
  const image = document.createElement("img");
  const style = getComputedStyle(canvas);
  image.src = canvas.toDataURL("image/png");
  image.alt = "";
  image.setAttribute("style", KEPT_OF_CANVAS.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
  return image;
}
