/**
 * The contexts that a person was in since the prompt. Each is the prompt and some tokens more, so they make a tree: a
 * node is one token after its parent. Node 0 is the prompt; the others are numbered as they were first visited, so a
 * parent comes before its children. In the address:
 *
 *     0.318.257.1212*1.262~4
 *
 * from node 0 on by three tokens, from node 1 by another one; four contexts were left out to keep the tree small.
 * Beside it `4.12.1`: from node 1 on, 4 beams of 12 tokens were searched for.
 */

export interface Tree {
  /** How many tokens of the text are the prompt. */
  root: number;
  /** Node 1 and those after it. */
  nodes: readonly Twig[];
  /** How many contexts were left out. */
  left: number;
  /** The beams that were searched for, if any are shown. */
  search: Search | null;
}

export interface Twig {
  parent: number;
  token: number;
}

/** A beam search: from where, how many beams, and how many tokens long. */
export interface Search {
  path: readonly number[];
  beams: number;
  tokens: number;
}

export const MOST_NODES = 200;
/** As many as can still be looked at; the server would search for more. */
export const MOST_BEAMS = 16;
export const MOST_DEPTH = 32;

export const rooted = (root: number): Tree => ({ root, nodes: [], left: 0, search: null });

/** The tokens that lead from the prompt to a node. */
export function pathOf({ nodes }: Tree, node: number): number[] {
  const path: number[] = [];
  for (let at = node; at > 0; at = nodes[at - 1].parent) path.push(nodes[at - 1].token);
  return path.reverse();
}

/** The node of a path, or null where nobody was. */
export function nodeOf(tree: Tree, path: readonly number[]): number | null {
  let at = 0;
  for (const token of path) {
    at = childOf(tree, at, token);
    if (at === 0) return null;
  }
  return at;
}

const childOf = ({ nodes }: Tree, parent: number, token: number): number =>
  nodes.findIndex((twig) => twig.parent === parent && twig.token === token) + 1;

/** With every context along a path, of which some may be there already. */
export function grown(tree: Tree, path: readonly number[], from = 0): Tree {
  const nodes = [...tree.nodes];
  let at = from;
  for (const token of path) {
    const child = childOf({ ...tree, nodes }, at, token);
    if (child === 0) nodes.push({ parent: at, token });
    at = child || nodes.length;
  }
  return nodes.length === tree.nodes.length ? tree : { ...tree, nodes };
}

/** The same tree after a shorter prompt, which lacks these last tokens. */
export function raised(tree: Tree, tokens: readonly number[]): Tree {
  const [by, { search }] = [tokens.length, tree];
  const stem = tokens.map((token, parent) => ({ parent, token }));
  const nodes = [...stem, ...tree.nodes.map(({ parent, token }) => ({ parent: parent + by, token }))];
  return { ...tree, root: tree.root - by, nodes, search: search && { ...search, path: [...tokens, ...search.path] } };
}

/**
 * At most `most` nodes: what is left out is the end of a branch that was first visited longest ago, and never anything
 * along `path`; where nothing else is left, the prompt becomes longer instead.
 */
export function bounded(tree: Tree, path: readonly number[], most = MOST_NODES): Tree {
  let { root, nodes, left, search } = tree;
  const kept = new Set(ancestors(tree, nodeOf(tree, path) ?? 0).map((node) => nodes[node - 1]));
  while (nodes.length > most) {
    const parents = new Set(nodes.map(({ parent }) => parent));
    const end = nodes.findIndex((twig, i) => !parents.has(i + 1) && !kept.has(twig));
    const gone = end < 0 ? 1 : end + 1;
    const numbered = (node: number): number => (node > gone ? node - 1 : node === gone ? 0 : node);
    nodes = nodes.filter((_, i) => i !== gone - 1).map((twig) => {
      const parent = numbered(twig.parent);
      if (parent === twig.parent) return twig;
      const moved = { ...twig, parent };
      if (kept.has(twig)) kept.add(moved);
      return moved;
    });
    if (end < 0) {
      if (search) search = search.path[0] === path[0] ? { ...search, path: search.path.slice(1) } : null;
      path = path.slice(1);
      root++;
    }
    left++;
  }
  return left === tree.left ? tree : settled({ root, nodes, left, search });
}

/** Without a search from where nobody was. */
const settled = (tree: Tree): Tree => (tree.search && nodeOf(tree, tree.search.path) === null ? { ...tree, search: null } : tree);

/** A node and those that it comes from, without the prompt. */
export function ancestors({ nodes }: Tree, node: number): number[] {
  const found: number[] = [];
  for (let at = node; at > 0; at = nodes[at - 1].parent) found.push(at);
  return found;
}

/** Without tokens that a vocabulary of so many lacks, and what came after them. */
export function within(tree: Tree, vocabSize: number): Tree {
  if (tree.nodes.every(({ token }) => token < vocabSize)) return tree;
  const numbers = new Map([[0, 0]]);
  const nodes: Twig[] = [];
  tree.nodes.forEach(({ parent, token }, i) => {
    const to = numbers.get(parent);
    if (to === undefined || token >= vocabSize) return;
    nodes.push({ parent: to, token });
    numbers.set(i + 1, nodes.length);
  });
  return settled({ ...tree, nodes });
}

/** Whether the tree is one path and nothing else, so that the text says all of it. */
export function isPath({ nodes, left }: Tree, path: readonly number[]): boolean {
  return left === 0 && nodes.length <= path.length && nodes.every(({ parent, token }, i) => parent === i && token === path[i]);
}

export function spelled({ nodes, left }: Tree): string {
  const parts: string[] = [];
  nodes.forEach(({ parent, token }, i) => {
    if (i === 0 || parent !== i) parts.push(`*${parent}`);
    parts.push(`.${token}`);
  });
  return `${parts.join("").slice(1)}${left > 0 ? `~${left}` : ""}`;
}

/** The tree that a text spells; null for what spells none. */
export function readTree(text: string, root: number, most = MOST_NODES): Tree | null {
  const [, branches, left = "0"] = /^([\d.*]*)(?:~(\d{1,9}))?$/.exec(text) ?? [];
  if (branches === undefined) return null;
  let tree: Tree = { ...rooted(root), left: Number(left) };
  for (const branch of branches.split("*").filter(Boolean)) {
    const [from, ...tokens] = branch.split(".").map((part) => (/^\d{1,9}$/.test(part) ? Number(part) : NaN));
    if (!(from <= tree.nodes.length) || tokens.length === 0 || tokens.some(Number.isNaN)) return null;
    if (tree.nodes.length + tokens.length > most) return null;
    tree = grown(tree, tokens, from);
  }
  return tree;
}

export function spelledSearch(tree: Tree): string | null {
  const node = tree.search && nodeOf(tree, tree.search.path);
  return node === null ? null : [tree.search!.beams, tree.search!.tokens, node].join(".");
}

export function readSearch(text: string | null, tree: Tree): Search | null {
  const [, beams, tokens, node] = /^(\d{1,3})\.(\d{1,3})\.(\d{1,4})$/.exec(text ?? "") ?? [];
  const fits = (text: string, most: number): boolean => Number(text) > 0 && Number(text) <= most;
  if (!fits(beams, MOST_BEAMS) || !fits(tokens, MOST_DEPTH) || Number(node) > tree.nodes.length) return null;
  return { beams: Number(beams), tokens: Number(tokens), path: pathOf(tree, Number(node)) };
}
