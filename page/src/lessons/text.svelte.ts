/** The text that the lessons count: all words of the page, or what a reader puts in. */

import { frequencies, lettersOf, MOST_LETTERS, Ring, wordsOf } from "../lib/letters.ts";
import { STRINGS } from "../lib/strings.ts";
import { world } from "../world.svelte.ts";

export const SOURCES = ["en", "zh", "own"] as const;
export type Source = (typeof SOURCES)[number];
const TYPING_MS = 180;

class LessonText {
  private counted = $state(world.ownText);
  private timer = 0;

  source: Source = $derived(SOURCES.find((source) => source === world.route.knobs.text) ?? world.language);
  shown: string = $derived(this.source === "own" ? world.ownText : wordsOfThePage(this.source));
  private text = $derived(this.source === "own" ? this.counted : this.shown);
  letters: string[] = $derived(lettersOf(this.text));
  words: string[] = $derived(wordsOf(this.text));
  isCut = $derived(this.letters.length === MOST_LETTERS);
  frequencies = $derived(frequencies(this.letters));
  ring = $derived(new Ring(this.letters));

  choose(source: Source): void {
    if (source === "own") this.type(this.shown);
    else world.turn("text", source === world.language ? null : source);
  }

  type(text: string): void {
    world.ownText = text;
    if (this.source !== "own") {
      this.counted = text;
      world.turn("text", "own");
    }
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => (this.counted = text), TYPING_MS);
  }
}

function wordsOfThePage(language: "en" | "zh"): string {
  return Object.values(STRINGS[language]).join("\n").replace(/\{\w+\}/g, "");
}

export const lessonText = new LessonText();
