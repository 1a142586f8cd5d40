/** The page's keyboard: which key does what, and where it must stay what it is. */

export type Command =
  | { do: "prompt" | "play" | "back" | "forward" | "temperature" | "red" | "off" | "compare" | "help" | "leave" }
  | { do: "layer" | "head"; by: 1 | -1 }
  | { do: "token"; token: number };

/** Keys in the order in which the help lists them; the names are keys of the string table. */
export const HELP: [string, string][] = [
  ["/", "key.prompt"],
  ["Space", "key.play"],
  [", .", "key.step"],
  ["[ ]", "key.layer"],
  ["{ }", "key.head"],
  ["o", "key.off"],
  ["← → ↑ ↓", "key.arrows"],
  ["0 – 9", "key.digits"],
  ["t", "key.temperature"],
  ["r", "key.red"],
  ["c", "key.compare"],
  ["?", "key.help"],
  ["Esc", "key.leave"],
];

const PLAIN: Record<string, Command> = {
  "/": { do: "prompt" },
  " ": { do: "play" },
  ",": { do: "back" },
  ".": { do: "forward" },
  "[": { do: "layer", by: -1 },
  "]": { do: "layer", by: 1 },
  "{": { do: "head", by: -1 },
  "}": { do: "head", by: 1 },
  t: { do: "temperature" },
  r: { do: "red" },
  o: { do: "off" },
  c: { do: "compare" },
  "?": { do: "help" },
  Escape: { do: "leave" },
};

interface Key {
  key: string;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
}

/** What is focused, as far as keys care. */
export type Focus = "text" | "button" | "page";

/**
 * The command of a key. In a text field all keys write, but Escape leaves; on a button the space bar presses it.
 */
export function commandOf(key: Key, focus: Focus): Command | null {
  if (key.ctrlKey || key.metaKey || key.altKey) return null;
  if (focus === "text") return key.key === "Escape" ? { do: "leave" } : null;
  if (focus === "button" && key.key === " ") return null;
  if (/^[0-9]$/.test(key.key)) return { do: "token", token: Number(key.key) };
  return PLAIN[key.key] ?? null;
}

export function focusOf(element: Element | null): Focus {
  if (element === null) return "page";
  const type = element.getAttribute("type");
  const name = element.tagName.toLowerCase();
  if (name === "textarea" || name === "select" || (name === "input" && type !== "range" && type !== "checkbox")) return "text";
  return name === "button" || name === "a" || name === "summary" || name === "input" || element.getAttribute("role") === "button"
    ? "button"
    : "page";
}

/**
 * The next place in a list or grid of `count` cells, `columns` wide, after an arrow key, Home or End; null for others.
 */
export function moved(key: string, at: number, count: number, columns = 1): number | null {
  const steps: Record<string, number> = {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -columns,
    ArrowDown: columns,
    PageUp: -columns * 10,
    PageDown: columns * 10,
  };
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  if (!(key in steps)) return null;
  const next = at + steps[key];
  return next >= 0 && next < count ? next : at;
}
