/**
 * Colours of the pictures. Sequential: cividis (Nuñez, Anderton, Renslow, 2018), which people with any colour vision
 * see alike; less and more: blue and orange. Each is a few stops between which colours are mixed.
 */

export type Rgb = [number, number, number];

const CIVIDIS: Rgb[] = [
  [0, 34, 78],
  [18, 53, 112],
  [59, 73, 108],
  [87, 93, 109],
  [112, 113, 115],
  [138, 134, 120],
  [165, 156, 116],
  [195, 179, 105],
  [225, 204, 85],
  [254, 232, 56],
];

export type Theme = "light" | "dark";

/** What became less (blue) and what became more (orange), from the least change to the largest. */
const LESS: Record<Theme, Rgb[]> = {
  light: [
    [170, 200, 224],
    [0, 92, 156],
  ],
  dark: [
    [52, 84, 110],
    [120, 190, 244],
  ],
};
const MORE: Record<Theme, Rgb[]> = {
  light: [
    [244, 200, 160],
    [196, 84, 0],
  ],
  dark: [
    [106, 72, 46],
    [255, 158, 88],
  ],
};

/** The tone of an arrow on light paper and on dark: the likelier, the further from the paper. */
const TONES: Record<Theme, Rgb[]> = {
  light: [
    [167, 183, 201],
    [115, 145, 178],
    [51, 97, 143],
    [11, 42, 74],
  ],
  dark: [
    [70, 88, 108],
    [88, 124, 160],
    [124, 174, 218],
    [206, 232, 252],
  ],
};

/** Three regions and what they are hatched with, by their place: blue, orange, green, apart in lightness too. */
export const REGIONS: Record<Theme, { plain: Rgb[]; hatch: Rgb[] }> = {
  light: {
    plain: [
      [143, 193, 227],
      [251, 222, 160],
      [142, 214, 187],
    ],
    hatch: [
      [66, 128, 172],
      [251, 222, 160],
      [46, 140, 106],
    ],
  },
  dark: {
    plain: [
      [38, 80, 116],
      [128, 92, 22],
      [24, 92, 70],
    ],
    hatch: [
      [94, 150, 194],
      [128, 92, 22],
      [84, 172, 138],
    ],
  },
};

const hex = (text: string): Rgb => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)) as Rgb;

/** A colour for each digit. They are drawn as themselves, so that colour only helps. */
export const DIGITS: Record<Theme, Rgb[]> = {
  light: ["#0072b2", "#a86e00", "#007a5a", "#a8477f", "#2a7fb8", "#c95800", "#5b4fb5", "#1b2733", "#7a5230", "#667400"].map(hex),
  dark: ["#5ab4f0", "#e0a63a", "#3ecf9f", "#e39ac4", "#a6d8f7", "#ff9159", "#aca3f7", "#e7edf3", "#cda582", "#b9c84a"].map(hex),
};

export const cividis = (share: number): Rgb => mixed(CIVIDIS, share);
/** From -1 (blue) over the paper's own colour to 1 (orange). */
export function signedTone(value: number, theme: Theme): Rgb {
  const paper: Rgb = theme === "light" ? [246, 247, 248] : [24, 30, 37];
  return mixed([(value < 0 ? LESS : MORE)[theme][1], paper], 1 - Math.min(Math.abs(value), 1));
}

export const gain = (sign: number, share: number, theme: Theme): Rgb => mixed((sign < 0 ? LESS : MORE)[theme], share);
export const tone = (share: number, theme: Theme): Rgb => mixed(TONES[theme], share);

export function css([r, g, b]: Rgb): string {
  return `rgb(${Math.round(r)} ${Math.round(g)} ${Math.round(b)})`;
}

/** A colour as a canvas holds it: four bytes in one number. */
export function word([r, g, b]: Rgb, opacity = 255): number {
  return new Uint32Array(Uint8Array.of(Math.round(r), Math.round(g), Math.round(b), opacity).buffer)[0];
}

/** Black or white, whichever can be read on the colour. */
export function inkOn(colour: Rgb): string {
  return contrast(colour, [255, 255, 255]) >= contrast(colour, [0, 0, 0]) ? "#ffffff" : "#000000";
}

function mixed(stops: readonly Rgb[], share: number): Rgb {
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const below = Math.min(Math.floor(at), stops.length - 2);
  return [0, 1, 2].map((i) => stops[below][i] + (at - below) * (stops[below + 1][i] - stops[below][i])) as Rgb;
}

/** The contrast ratio of WCAG 2, from 1 to 21. */
export function contrast(a: Rgb, b: Rgb): number {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (high + 0.05) / (low + 0.05);
}

function luminance(colour: Rgb): number {
  const [r, g, b] = colour.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
