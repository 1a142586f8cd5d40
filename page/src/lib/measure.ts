/** How wide a line of text is in the page's own type, and what is left of one that is too long. */

import type { Measure } from "./ring.ts";

const known = new Map<string, number>();
let context: CanvasRenderingContext2D | null | undefined;

export const textWidth: Measure = (text, size) => {
  const name = `${size} ${text}`;
  let width = known.get(name);
  if (width === undefined) {
    width = measured(text, size);
    known.set(name, width);
  }
  return width;
};

function measured(text: string, size: number): number {
  context ??= document.createElement("canvas").getContext("2d");
  if (!context) return estimated(text, size);
  context.font = `${size}px ${getComputedStyle(document.documentElement).fontFamily}`;
  return context.measureText(text).width;
}

/** Where there is no canvas: a Chinese character is as wide as it is high, others about 0.6 of it. */
export const estimated: Measure = (text, size) =>
  [...text].reduce((width, character) => width + (character.codePointAt(0)! > 0x2e80 ? 1 : 0.6) * size, 0);

/** At most so many letters of a name, the last of which says that there are more. */
export function clipped(name: string, most: number): string {
  const letters = [...name];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : name;
}
