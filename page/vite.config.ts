import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";
import { mockApi } from "./mock/plugin.ts";

/** A running `glassgpt serve` to develop against, in place of the mock. */
const server = process.env.GLASSGPT;

/** The page is served by GlassGPT itself at any path; `npm run dev` serves it with a mock of the API instead. */
export default defineConfig({
  base: "./",
  plugins: server ? [svelte()] : [svelte(), mockApi()],
  // The server takes questions from its own page only, so the proxy speaks in that page's name.
  server: server ? { proxy: { "/api": { target: server, changeOrigin: true, headers: { origin: server } } } } : {},
  build: {
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0, // a data: URI would need a hole in the content security policy
    reportCompressedSize: false,
  },
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
});
