// Builds the example's React page into static/built; run by Node.js after `make pages`.
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const modules = resolve(here, "../../frontend/node_modules");
const { build } = createRequire(join(modules, "esbuild/package.json"))("esbuild");

await build({
  entryPoints: [join(here, "page.ts")],
  outdir: process.argv[2] ?? join(here, "static/built"),
  nodePaths: [modules],
  bundle: true,
  minify: true,
  format: "iife",
  target: ["es2022"],
  define: { "process.env.NODE_ENV": '"production"' },
  logLevel: "warning",
});
