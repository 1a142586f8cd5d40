/** The server of a page that was saved: what it carries, and for everything else a word that there is no more. */

import { Api, ApiError, type ChainReply, type Info } from "./api.ts";
import { spellChange } from "./change.ts";
import type { ModelRef } from "./route.ts";
import { bytesOf, type Saved } from "./saved.ts";

export class SavedApi extends Api {
  constructor(private readonly saved: Saved) {
    super("", () => Promise.reject(new Error("a saved page asks nobody")));
  }

  override async info(): Promise<Info> {
    return this.saved.info;
  }

  override async chain(ref: ModelRef): Promise<ChainReply> {
    const found = this.saved.chains.find((chain) => isSame(chain, ref));
    if (!found) throw nothing();
    const counts = this.saved.counts.find((counts) => counts.id === ref.id);
    return { logits: new Float32Array(bytesOf(found.logits)), counts: counts ? new Int32Array(bytesOf(counts.counts)) : null };
  }

  override async digits(): Promise<ArrayBuffer> {
    throw nothing();
  }

  override async next(ref: ModelRef, ids: readonly number[]): Promise<Float32Array> {
    const found = this.saved.replies.find((reply) => isSame(reply, ref) && reply.ids.join() === ids.join());
    if (!found) throw nothing();
    return new Float32Array(bytesOf(found.logits));
  }
}

const isSame = (a: ModelRef, b: ModelRef): boolean =>
  a.id === b.id && a.step === b.step && (a.change && spellChange(a.change)) === (b.change && spellChange(b.change));
const nothing = (): ApiError => new ApiError("missing", "this page was saved without it, and has no server behind it", "glassgpt serve");
