// Builds src/ into src/etude/web/static/dist (or the folder given): hashed names and manifest.json.
// The same sources give the same bytes, which a test checks.

import { build } from "esbuild";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? join(here, "../src/etude/web/static/dist"));

await mkdir(out, { recursive: true });
for (const old of await readdir(out)) await rm(join(out, old), { recursive: true });

const built = await build({
  absWorkingDir: here,
  entryPoints: [
    "src/app.ts",
    "src/app.css",
    "src/events-worker.ts",
    "src/practise.ts",
    "src/practise.css",
    "src/papers.ts",
    "src/papers.css",
    "src/lab.ts",
    "src/lab.css",
  ],
  outdir: out,
  entryNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  loader: { ".woff2": "file" },
  charset: "utf8",
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
});

// Fonts are no entries: style sheets name them, and so they are sent.
const manifest = Object.entries(built.metafile.outputs)
  .map(([file, output]) => [
    basename(output.entryPoint ?? Object.keys(output.inputs)[0]).replace(/\.ts$/, ".js"),
    basename(file),
  ])
  .sort(([a], [b]) => (a < b ? -1 : 1));
await writeFile(
  join(out, "manifest.json"),
  JSON.stringify(Object.fromEntries(manifest), null, 2) + "\n",
);
for (const [name, file] of manifest) console.log(`${name} -> ${file}`);
