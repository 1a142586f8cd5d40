/** What all charts with axes share: scales, the texts of ticks, the room that these take, and lines. */

import { minus } from "./numbers.ts";

/** Where the axes stand, in pixels: y0 is the upper edge. */
export interface Box {
  x0: number;
  x1: number;
  y0: number;
  y1: number;
}

export interface Spot {
  x: number;
  y: number;
}

export interface Tick {
  at: number;
  text: string;
}

/** From values to pixels; where all values are the same, to the first pixel. */
export type Scale = (value: number) => number;

export function scaleOf([low, high]: readonly [number, number], [from, to]: readonly [number, number]): Scale {
  return (value) => from + ((value - low) / Math.max(high - low, 1e-9)) * (to - from);
}

export function written(places: readonly number[], write: (place: number) => string = minus): Tick[] {
  return places.map((at) => ({ at, text: write(at) }));
}

/** The pixels that an upright axis needs on its left for its numbers, and for its name if it has one. */
export function roomFor(ticks: readonly Tick[], hasName = true): number {
  return 12 + 7 * Math.max(1, ...ticks.map(({ text }) => text.length)) + (hasName ? 16 : 0);
}

/** The SVG path of a line, to a tenth of a pixel, with a gap wherever y is no number. */
export function lineThrough(spots: readonly Spot[], toX: Scale, toY: Scale): string {
  let text = "";
  let isDown = false;
  for (const { x, y } of spots) {
    if (Number.isFinite(y)) text += `${isDown ? "L" : "M"}${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`;
    isDown = Number.isFinite(y);
  }
  return text;
}
