import { describe, expect, test } from "vitest";
import { contrast, cividis, DIGITS, gain, inkOn, tone, type Rgb } from "../src/lib/colour.ts";
import { idsOf, numberOf, spell, tokensOf, visible } from "../src/lib/contexts.ts";
import { csv } from "../src/lib/export.ts";
import { commandOf, HELP, moved } from "../src/lib/keys.ts";
import { cellOf, planMap, stateAt } from "../src/lib/map.ts";
import { clipped } from "../src/lib/measure.ts";
import { barPercent, finePercent, fromLog, minus, percent, power10, powerLabel, powerTicks, signed, ticks } from "../src/lib/numbers.ts";
import { nextOf, packed, PATH, unpacked, type Deed } from "../src/lib/path.ts";
import { LESSONS, OVERLAYS, PLACES } from "../src/lib/route.ts";
import { LESSON_STRINGS, type LessonKey } from "../src/lib/lesson-strings.ts";
import { filled, STRINGS, type Key } from "../src/lib/strings.ts";

describe("strings", () => {
  const { en, zh } = STRINGS;

  test("both languages hold the same keys, each with a text", () => {
    expect(Object.keys(zh).sort()).toEqual(Object.keys(en).sort());
    for (const text of [...Object.values(en), ...Object.values(zh)]) expect(text.trim()).not.toBe("");
  });

  test("both fill in the same values", () => {
    const values = (text: string): string[] => [...new Set(text.match(/\{\w+\}/g) ?? [])].sort();
    for (const key of Object.keys(en) as Key[]) {
      if (key === "spoken.bar") continue;
      expect(values(zh[key]), key).toEqual(values(en[key]));
    }
  });

  test("the lessons have theirs, with the same values in both languages", () => {
    const [english, chinese] = [LESSON_STRINGS.en, LESSON_STRINGS.zh];
    expect(Object.keys(chinese).sort()).toEqual(Object.keys(english).sort());
    const values = (text: string): string[] => [...new Set(text.match(/\{\w+\}/g) ?? [])].sort();
    for (const key of Object.keys(english) as LessonKey[]) expect(values(chinese[key]), key).toEqual(values(english[key]));
    for (const lesson of LESSONS) {
      for (const part of ["short", "title", "lead"]) expect(Object.keys(english)).toContain(`${lesson}.${part}`);
    }
  });

  test("values are filled in as they are, and what has none stays", () => {
    expect(filled("{a} of {b}", { a: "{b}" })).toBe("{b} of {b}");
  });

  test("what is made up from parts is there", () => {
    const made = [
      ...PLACES.map((place) => `place.${place}`),
      ...OVERLAYS.map((overlay) => `over.${overlay}`),
      ...PATH.map((deed) => `next.${deed}`),
      ...HELP.map(([, meaning]) => meaning),
      "ring.caption.stationary",
      "ring.caption.entropy",
      "ring.caption.red",
    ];
    for (const key of made) expect(Object.keys(en)).toContain(key);
  });
});

describe("numbers", () => {
  test("a probability is never shown as certain unless it is", () => {
    expect([0, 1e-9, 0.004, 0.793, 0.9999, 1].map(percent)).toEqual(["0%", "<1%", "<1%", "79%", ">99%", "100%"]);
    expect([0, 1e-9, 0.0123, 0.99999, 1].map((p) => finePercent(p))).toEqual(["0%", "<0.1%", "1.2%", ">99.9%", "100%"]);
    expect(finePercent(1e-9, 2)).toBe("<0.01%");
    expect(finePercent(1 - 1e-9, 2)).toBe(">99.99%");
    expect(barPercent(0.0045)).toBe("0.45%");
  });

  test("a tiny probability keeps its digits, whatever its size", () => {
    expect(fromLog(Math.log(0.123))).toBe("12.3%");
    expect(fromLog(-4700)).toBe("6.5e−2042");
    expect(fromLog(-Infinity)).toBe("0");
    expect(fromLog(0)).toBe("100%");
    expect(fromLog(Math.log(0.9994))).toBe("99.9%");
    expect(fromLog(Math.log1p(-4.2e-4))).toBe("1 − 4.2e−4");
    expect(fromLog(-1e-20)).toBe("1 − 1.0e−20");
    expect(fromLog(-Number.MIN_VALUE)).toBe(">1 − 1e−300");
  });

  test("large numbers are powers of ten", () => {
    expect(power10(Math.log10(4096))).toBe("4,096");
    expect(power10(2048 * Math.log10(49152))).toBe("1.9 × 10⁹⁶⁰⁸");
    expect([0, -1, Math.log10(0.02), -9].map(powerLabel)).toEqual(["100%", "10%", "2%", "10⁻⁹"]);
  });

  test("signs are signs", () => {
    expect([minus(-0.5), minus("1e-9"), minus(7)]).toEqual(["−0.5", "1e−9", "7"]);
    expect([signed(-0.576, 2), signed(0.3, 1), signed(-0.001, 1)]).toEqual(["−0.58", "+0.3", "0.0"]);
  });

  test("ticks are round and inside", () => {
    expect(ticks(0, 50, 5)).toEqual([0, 10, 20, 30, 40, 50]);
    expect(ticks(0.37, 0.66, 4)).toEqual([0.4, 0.5, 0.6]);
    expect(powerTicks(-9, -3, 6)).toEqual([-9, -8, -7, -6, -5, -4, -3]);
    expect(powerTicks(-1, 0, 5).map(powerLabel)).toEqual(["10%", "20%", "50%", "100%"]);
    expect(powerTicks(Math.log10(0.74), 0.01, 5).map(powerLabel)).toEqual(["80%", "90%", "100%"]);
  });
});

describe("contexts", () => {
  test("numbers and tokens are each other's inverse", () => {
    for (let state = 0; state < 81; state++) expect(numberOf(tokensOf(state, 3, 4), 3, 4)).toBe(state);
    expect(numberOf([1], 2, 3)).toBeNull();
    expect(spell(5, 3, ["0", "1"])).toBe("101");
  });

  test("text from outside is shown as text", () => {
    expect(visible("a b\n\t")).toBe("a␣b↵⇥");
    expect(visible("\x00\u202e\u2028")).toBe("\\x00\\u{202e}\\u{2028}");
    expect(visible("")).toBe("∅");
    expect(visible("<img src=x>")).toBe("<img␣src=x>");
  });

  test("a sequence is read symbol by symbol, longest first", () => {
    expect(idsOf("abaab", ["a", "ab", "b"])).toEqual([1, 0, 1]);
    expect(idsOf("ax", ["a"])).toBeNull();
  });

  test("every state has its own cell, and states that end alike lie together", () => {
    for (const [V, k] of [[2, 5], [3, 4], [4, 3]]) {
      const plan = planMap(V, k);
      const cells = new Set<string>();
      for (let state = 0; state < V ** k; state++) {
        const { x, y } = cellOf(plan, state);
        cells.add(`${x},${y}`);
        expect(stateAt(plan, x, y)).toBe(state);
        expect(Math.floor(x / (plan.columns / V))).toBe(state % V);
      }
      expect(cells.size).toBe(V ** k);
    }
  });
});

test("a long name ends in dots, and a letter is never cut in two", () => {
  expect(clipped("hello", 5)).toBe("hello");
  expect(clipped("hello!", 5)).toBe("hell…");
  expect(clipped("𝄞𝄞𝄞", 2)).toBe("𝄞…");
});

describe("keys", () => {
  const key = (name: string, more = {}) => ({ key: name, ctrlKey: false, metaKey: false, altKey: false, ...more });

  test("keys do what the help says, digits take tokens", () => {
    expect(commandOf(key("3"), "page")).toEqual({ do: "token", token: 3 });
    expect(commandOf(key("{"), "page")).toEqual({ do: "head", by: -1 });
    expect(commandOf(key(" "), "page")).toEqual({ do: "play" });
  });

  test("who writes, writes; who holds control, means the browser", () => {
    expect(commandOf(key("r"), "text")).toBeNull();
    expect(commandOf(key("Escape"), "text")).toEqual({ do: "leave" });
    expect(commandOf(key(" "), "button")).toBeNull();
    expect(commandOf(key("r", { ctrlKey: true }), "page")).toBeNull();
  });

  test("arrows move inside and stop at the edge", () => {
    expect(moved("ArrowDown", 1, 6, 3)).toBe(4);
    expect(moved("ArrowDown", 4, 6, 3)).toBe(4);
    expect(moved("ArrowLeft", 0, 6)).toBe(0);
    expect(moved("End", 0, 6)).toBe(5);
    expect(moved("x", 0, 6)).toBeNull();
  });
});

describe("files", () => {
  test("cells with commas, quotes and lines are quoted", () => {
    expect(csv([["a,b", 'say "x"', "l\nm"], [1, 0.5, ""]])).toBe('"a,b","say ""x""","l\nm"\r\n1,0.5,\r\n');
  });
});

describe("the path", () => {
  test("what is open is offered in order, and what is done is remembered", () => {
    const done = new Set<Deed>(["train", "walk"]);
    expect(nextOf(done)).toBe("scrub");
    expect(unpacked(packed(done))).toEqual(done);
    expect(nextOf(new Set(PATH))).toBeNull();
  });
});

describe("colours", () => {
  const PAPER: Record<"light" | "dark", Rgb> = { light: [255, 255, 255], dark: [16, 21, 27] };

  test("writing on a coloured state can be read", () => {
    for (let i = 0; i <= 20; i++) {
      const colour = cividis(i / 20);
      expect(contrast(colour, inkOn(colour) === "#ffffff" ? [255, 255, 255] : [0, 0, 0])).toBeGreaterThan(4.5);
    }
  });

  test("each digit's colour can be seen on the paper", () => {
    for (const theme of ["light", "dark"] as const) {
      for (const colour of DIGITS[theme]) expect(contrast(colour, PAPER[theme])).toBeGreaterThan(4);
    }
  });

  test("the likelier an arrow, the further it is from the paper", () => {
    for (const theme of ["light", "dark"] as const) {
      const contrasts = [0, 0.25, 0.5, 0.75, 1].map((share) => contrast(tone(share, theme), PAPER[theme]));
      expect(contrasts).toEqual([...contrasts].sort((a, b) => a - b));
      expect(contrasts[0]).toBeGreaterThan(1.8);
      for (const sign of [-1, 1]) expect(contrast(gain(sign, 1, theme), PAPER[theme])).toBeGreaterThan(4);
    }
  });
});
