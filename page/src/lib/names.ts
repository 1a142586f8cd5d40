/** Where the names of dots go: beside each, wherever it covers neither a dot nor another name. */

export type Side = "right" | "left" | "above" | "below";

/** A dot in pixels with the size of its name. */
export interface Named {
  x: number;
  y: number;
  radius: number;
  width: number;
  height: number;
}

interface Box {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

const SIDES: readonly Side[] = ["right", "left", "above", "below"];
const GAP = 3;

/** The side that each dot's name goes to; null where it has room on none. Those that come first in `order` choose first. */
export function besides(dots: readonly Named[], order: readonly number[], width: number): (Side | null)[] {
  const taken = dots.map(({ x, y, radius }) => ({ left: x - radius, right: x + radius, top: y - radius, bottom: y + radius }));
  const found = dots.map((): Side | null => null);
  for (const i of order) {
    for (const side of SIDES) {
      const box = boxOf(dots[i], side);
      if (box.left < 0 || box.right > width || taken.some((other, j) => j !== i && overlap(box, other))) continue;
      found[i] = side;
      taken.push(box);
      break;
    }
  }
  return found;
}

export function boxOf({ x, y, radius, width, height }: Named, side: Side): Box {
  const away = radius + GAP;
  const [left, top] = {
    right: [x + away, y - height / 2],
    left: [x - away - width, y - height / 2],
    above: [x - width / 2, y - away - height],
    below: [x - width / 2, y + away],
  }[side];
  return { left, right: left + width, top, bottom: top + height };
}

const overlap = (a: Box, b: Box): boolean => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
