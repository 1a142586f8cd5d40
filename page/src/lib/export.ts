/** Any picture as a file: SVG with its styles inside, PNG, and its numbers as CSV. */

/** What a stylesheet may have said about a mark, and a file by itself must say again. */
const STYLES = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-opacity",
  "stroke-dasharray",
  "stroke-linejoin",
  "stroke-linecap",
  "paint-order",
  "opacity",
  "visibility",
  "font-family",
  "font-size",
  "font-weight",
  "font-style",
  "font-variant-numeric",
  "text-anchor",
  "dominant-baseline",
];

const SVG = "http://www.w3.org/2000/svg";

/** The picture as a document of its own, on paper of the page's colour. */
export function standaloneSvg(picture: SVGSVGElement, paper: string): string {
  const copy = picture.cloneNode(true) as SVGSVGElement;
  const originals = [picture, ...picture.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((element, i) => {
    const style = getComputedStyle(originals[i]);
    element.setAttribute("style", STYLES.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
    for (const name of ["class", "tabindex", "role", "aria-label", "aria-checked", "aria-describedby"]) {
      element.removeAttribute(name);
    }
  });
  const { width, height } = picture.getBoundingClientRect();
  const box = picture.viewBox.baseVal;
  const [x, y, w, h] = box?.width ? [box.x, box.y, box.width, box.height] : [0, 0, width, height];
  const ground = document.createElementNS(SVG, "rect");
  for (const [name, value] of Object.entries({ x, y, width: w, height: h, fill: paper })) ground.setAttribute(name, String(value));
  // Cells are painted on a canvas that lies below the marks.
  const canvas = picture.parentElement?.querySelector("canvas");
  if (canvas) copy.prepend(asImage(canvas, picture));
  copy.prepend(ground);
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("viewBox", `${x} ${y} ${w} ${h}`);
  copy.setAttribute("width", String(w));
  copy.setAttribute("height", String(h));
  return new XMLSerializer().serializeToString(copy);
}

/** The picture in pixels, `times` as many as the screen shows. */
export async function svgToPng(svg: string, times = 2): Promise<Blob> {
  const image = new Image();
  const url = URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" }));
  try {
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = Math.ceil(image.width * times);
    canvas.height = Math.ceil(image.height * times);
    canvas.getContext("2d")!.drawImage(image, 0, 0, canvas.width, canvas.height);
    return await canvasToPng(canvas);
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** A canvas as an image where it lies under the picture. */
function asImage(canvas: HTMLCanvasElement, picture: SVGSVGElement): SVGImageElement {
  const [at, above] = [canvas.getBoundingClientRect(), picture.getBoundingClientRect()];
  const image = document.createElementNS(SVG, "image");
  const place = { x: at.left - above.left, y: at.top - above.top, width: at.width, height: at.height };
  for (const [name, value] of Object.entries(place)) image.setAttribute(name, String(value));
  image.setAttribute("href", canvas.toDataURL("image/png"));
  image.setAttribute("preserveAspectRatio", "none");
  image.setAttribute("style", "image-rendering:pixelated");
  return image;
}

function canvasToPng(canvas: HTMLCanvasElement): Promise<Blob> {
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser made no PNG"))), "image/png"),
  );
}

/** Rows as CSV after RFC 4180: quoted where a comma, a quote or a line's end is inside. */
export function csv(rows: readonly (readonly (string | number)[])[]): string {
  const cell = (value: string | number): string => {
    const text = String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

export function download(name: string, content: Blob | string, type = "text/plain"): void {
  const blob = typeof content === "string" ? new Blob([content], { type }) : content;
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
