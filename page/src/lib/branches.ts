/**
 * What a tree of contexts shows: the contexts that a person was in, the beams of a search, at each of them the likeliest
 * ways that were not taken, and all other ways as one.
 */

import type { FoundBeam } from "./api.ts";
import type { Gist, Shares } from "./gist.ts";
import type { Tree } from "./tree.ts";
import type { Limb } from "./tree-layout.ts";

/** How many ways are shown where the person is, and elsewhere, and how many of them at least that were not taken. */
const WAYS = { here: 5, elsewhere: 2 };
const LEAST_STUBS = 2;

export type Kind = "prompt" | "visited" | "beam" | "stub" | "others";

export interface Branch extends Limb {
  kind: Kind;
  /** The tokens since the prompt, and the last of them; null of the prompt and of all others as one. */
  path: readonly number[];
  token: number | null;
  /** The natural logarithm of the probability of all this since the prompt, if every share on the way is known. */
  logprob: number | null;
  isHere: boolean;
  /** Whether the text leads along it. */
  isOnText: boolean;
  /** Of a search: whether one of its beams leads along, or only such as were dropped. */
  fate: "kept" | "running" | "dropped" | null;
  /** The beam that ends here: its place among the beams, from 1 on; 0 of one that was dropped. */
  beam: { rank: number; logprob: number } | null;
  /** How many tokens stand behind it: of all others as one. */
  tokens: number;
  limbs: Branch[];
}

/** What a search has come to. */
export interface Found {
  /** From where. */
  path: readonly number[];
  /** Best first, once it is over. */
  beams: readonly FoundBeam[] | null;
  running: readonly FoundBeam[];
  dropped: readonly FoundBeam[];
}

export interface Seen {
  gist: Gist;
  shares: Shares;
}

interface Question {
  tree: Tree;
  found: Found | null;
  /** The tokens since the prompt where the person is; null before its end. */
  here: readonly number[] | null;
  /** What is known of the logits after a path. */
  seen: (path: readonly number[]) => Seen | null;
  /** How wide a label is. */
  measure: (branch: Branch) => number;
}

interface Node {
  isVisited: boolean;
  fate: Branch["fate"];
  beam: Branch["beam"];
  children: Map<number, Node>;
}

const empty = (): Node => ({ isVisited: false, fate: null, beam: null, children: new Map() });

export function branchesOf(question: Question): Branch {
  return branchOf(question, trie(question), { kind: "prompt", path: [], token: null, share: 1, logprob: 0 });
}

/** The paths whose logits are needed: of whatever leads on, and of where the person is; and which shares are asked for. */
export function wanted(question: Pick<Question, "tree" | "found" | "here">): { path: number[]; tokens: number[] }[] {
  const result: { path: number[]; tokens: number[] }[] = [];
  const visit = (node: Node, path: number[]): void => {
    if (node.children.size > 0 || same(path, question.here)) result.push({ path, tokens: [...node.children.keys()] });
    for (const [token, child] of node.children) visit(child, [...path, token]);
  };
  visit(trie(question), []);
  return result;
}

function trie({ tree, found }: Pick<Question, "tree" | "found">): Node {
  const root = { ...empty(), isVisited: true };
  const nodes = [root];
  for (const { parent, token } of tree.nodes) {
    const node = { ...empty(), isVisited: true };
    nodes.push(node);
    nodes[parent].children.set(token, node);
  }
  if (!found) return root;
  let from: Node | undefined = root;
  for (const token of found.path) from = from?.children.get(token);
  if (!from) return root;
  const start = from;
  const lay = ({ ids, logprob }: FoundBeam, fate: "kept" | "running" | "dropped", rank: number): void => {
    let at = start;
    for (const token of ids) {
      const next = at.children.get(token) ?? empty();
      at.children.set(token, next);
      at = next;
      at.fate ??= fate;
    }
    if (ids.length > 0) at.beam ??= { rank, logprob };
  };
  // What is kept comes first: a beam's beginning is kept even where others that share it were dropped.
  found.beams?.forEach((beam, i) => lay(beam, "kept", i + 1));
  for (const beam of found.running) lay(beam, "running", 0);
  for (const beam of found.dropped) lay(beam, "dropped", 0);
  return root;
}

type Start = Pick<Branch, "kind" | "path" | "token" | "share" | "logprob">;

function branchOf(question: Question, node: Node, start: Start): Branch {
  const { here } = question;
  const isHere = same(start.path, here);
  const isOnText = here !== null && start.path.length <= here.length && start.path.every((token, i) => token === here[i]);
  const branch: Branch = { ...start, isHere, isOnText, fate: node.fate, beam: node.beam, tokens: 1, label: 0, limbs: [] };
  if (node.children.size > 0 || isHere) branch.limbs = limbsOf(question, node, branch);
  branch.label = question.measure(branch);
  return branch;
}

function limbsOf(question: Question, node: Node, branch: Branch): Branch[] {
  const { path, isHere, logprob } = branch;
  const seen = question.seen(path);
  const most = node.isVisited ? Math.max(LEAST_STUBS, (isHere ? WAYS.here : WAYS.elsewhere) - node.children.size) : 0;
  const stubs = (seen?.gist.ids ?? []).slice(0, most + node.children.size).filter((token) => !node.children.has(token)).slice(0, most);
  const rank = (token: number): number => seen?.gist.places.get(token)?.rank ?? Infinity;
  const tokens = [...node.children.keys(), ...stubs].sort((a, b) => (rank(a) === rank(b) ? 0 : rank(a) - rank(b)));
  const limbs = tokens.map((token) => {
    const child = node.children.get(token);
    const share = seen?.shares(token) ?? null;
    const kind = child === undefined ? "stub" : child.isVisited ? "visited" : "beam";
    const sum = share === null || logprob === null ? null : logprob + Math.log(share);
    return branchOf(question, child ?? empty(), { kind, path: [...path, token], token, share, logprob: sum });
  });
  const others = seen === null ? 0 : seen.gist.size - limbs.length;
  const held = limbs.reduce<number | null>((sum, { share }) => (share === null || sum === null ? null : sum + share), 0);
  const rest = held === null ? null : Math.max(1 - held, 0);
  // Rounding leaves a little where nothing is.
  if (others > 0 && rest !== null && rest > 1e-12) {
    const sum = logprob === null ? null : logprob + Math.log(rest);
    const last: Branch = { kind: "others", path, token: null, share: rest, logprob: sum, isHere: false, isOnText: false, fate: null, beam: null, tokens: others, label: 0, limbs: [] };
    limbs.push({ ...last, label: question.measure(last) });
  }
  return limbs;
}

const same = (a: readonly number[], b: readonly number[] | null): boolean => b !== null && a.length === b.length && a.every((token, i) => token === b[i]);

/** All branches, a parent before its children, as they are drawn. */
export function* everyBranch(branch: Branch): Generator<Branch> {
  yield branch;
  for (const limb of branch.limbs) yield* everyBranch(limb);
}

/** A name for a branch that no other has. */
export const keyOfBranch = ({ kind, path }: Branch): string => `${path.join(".")}${kind === "others" ? "…" : ""}`;
