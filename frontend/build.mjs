// Bundles the pages: TypeScript by esbuild, CSS by Tailwind, names carry a hash, manifest.json says which is which.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(here, process.argv[2] ?? "../src/orderwire/web/static/build");
const fresh = join(here, "node_modules", ".orderwire-build");

function styles() {
  const folder = mkdtempSync(join(tmpdir(), "orderwire-css-"));
  const css = join(folder, "tailwind.css");
  const cli = join(dirname(createRequire(import.meta.url).resolve("@tailwindcss/cli/package.json")), "dist/index.mjs");
  const run = spawnSync(process.execPath, [cli, "-i", join(here, "styles/app.css"), "-o", css], {
    cwd: here,
    encoding: "utf8",
  });
  if (run.status !== 0) throw new Error(`tailwind failed: ${run.stderr || run.stdout}`);
  const entry = join(folder, "app.css");
  writeFileSync(entry, `@import "${join(here, "styles/fonts.css")}";\n@import "${join(here, "node_modules/uplot/dist/uPlot.min.css")}";\n@import "./tailwind.css";\n`);
  return entry;
}

function manifest(outputs) {
  const names = {};
  for (const [path, info] of Object.entries(outputs)) {
    if (!info.entryPoint) continue;
    const suffix = path.endsWith(".css") ? ".css" : ".js";
    names[basename(info.entryPoint).replace(/\.\w+$/, "") + suffix] = basename(path);
  }
  return names;
}

async function bundle(css) {
  return build({
    entryPoints: [...["app", "orders", "charts", "theme", "follow"].map((name) => join(here, `src/${name}.ts`)), css],
    outdir: fresh,
    absWorkingDir: here,
    bundle: true,
    minify: true,
    format: "iife",
    target: ["es2022"],
    entryNames: "[name]-[hash]",
    assetNames: "[name]-[hash]",
    loader: { ".woff2": "file" },
    legalComments: "linked",
    metafile: true,
    logLevel: "warning",
  });
}

rmSync(fresh, { recursive: true, force: true });
mkdirSync(fresh, { recursive: true });
const css = styles();
const result = await bundle(css);
rmSync(dirname(css), { recursive: true, force: true });
const names = manifest(result.metafile.outputs);
const version = createHash("sha256").update(JSON.stringify(names)).digest("hex").slice(0, 12);
writeFileSync(join(fresh, "manifest.json"), `${JSON.stringify({ version, files: names }, null, 2)}\n`);
rmSync(out, { recursive: true, force: true });
mkdirSync(dirname(out), { recursive: true });
renameSync(fresh, out);
const total = readdirSync(out).reduce((sum, name) => sum + readFileSync(join(out, name)).length, 0);
console.log(`Pages built: ${Object.values(names).join(", ")} (${Math.round(total / 1024)} kB with fonts).`);
