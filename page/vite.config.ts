import { fileURLToPath } from "node:url";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";
import { mockApi } from "./mock/plugin.ts";
import { licences } from "./scripts/licences.ts";

/** A running `glassgpt serve` to develop against, in place of the mock. */
const server = process.env.GLASSGPT;

/** `vite build --mode saved`: the whole program as one classic script, which "Save this view" puts into its file. */
const forSavedPages = {
  emptyOutDir: false,
  cssCodeSplit: false,
  copyPublicDir: false,
  rolldownOptions: {
    checks: { emptyImportMeta: false }, // what is left of loading views later, which here are all inside
    input: "src/main.ts",
    output: { format: "iife", entryFileNames: "saved.js", assetFileNames: "saved[extname]", codeSplitting: false },
  },
} as const;

/** The page is served by GlassGPT itself at any path; `npm run dev` serves it with a mock of the API instead. */
export default defineConfig(({ mode }) => ({
  base: "./",
  plugins: [svelte(), licences(mode === "saved" ? "head" : "file"), ...(server ? [] : [mockApi()])],
  // The server takes questions from its own page only, so the proxy speaks in that page's name.
  server: server ? { proxy: { "/api": { target: server, changeOrigin: true, headers: { origin: server } } } } : {},
  resolve: { alias: mode === "saved" ? [{ find: /^\.\/worker\.ts$/, replacement: fileURLToPath(new URL("src/worker.none.ts", import.meta.url)) }] : [] },
  build: {
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0, // a data: URI would need a hole in the content security policy
    reportCompressedSize: false,
    ...(mode === "saved" ? forSavedPages : {}),
  },
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
}));
