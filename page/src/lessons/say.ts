import { LESSON_STRINGS, type LessonKey } from "../lib/lesson-strings.ts";
import { filled, type Values } from "../lib/strings.ts";
import { world } from "../world.svelte.ts";

/** The words of a lesson in the reader's language. */
export const say = (key: LessonKey, values: Values = {}): string => filled(LESSON_STRINGS[world.language][key], values);
