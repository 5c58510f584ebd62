// Builds GraphiQL and its workers into ../assets: minified, hashed by content, gzipped, listed in manifest.json.
//
// The same source gives the same bytes on every machine: versions are pinned in package-lock.json, esbuild is
// deterministic, and gzip is made by pako (plain JavaScript) because the zlib inside Node differs by version and by
// processor. `node build.mjs <directory>` writes elsewhere; the test uses that to compare with what is committed.
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { getIntrospectionQuery } from "graphql";
import { gzip } from "pako";

const HERE = dirname(fileURLToPath(import.meta.url));
const OUT = resolve(process.argv[2] ?? join(HERE, "../assets"));

// Only these three languages' workers exist; Monaco's other languages are not in the bundle at all.
const WORKERS = {
  editor: "monaco-editor/esm/vs/editor/editor.worker.js",
  json: "monaco-editor/esm/vs/language/json/json.worker.js",
  graphql: "monaco-graphql/esm/graphql.worker.js",
};

// What the HTML pages name.
const PAGES = {
  nonce: "src/nonce.ts",
  playground: "src/main.tsx",
  console: "src/console.ts",
  landing: "src/landing.css",
  logo: "src/logo.svg",
};

const SHARED = {
  absWorkingDir: HERE,
  preserveSymlinks: true, // names hash paths too: a linked node_modules must count as one that is here
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  outdir: OUT,
  target: ["es2022"],
  legalComments: "none", // the notices travel in third-party-notices.txt
  logLevel: "warning",
  entryNames: "[name]-[hash]",
  chunkNames: "chunk-[hash]",
  assetNames: "[name]-[hash]",
  loader: { ".ttf": "file", ".graphql": "text", ".svg": "copy" },
  define: { "process.env.NODE_ENV": '"production"' },
};

// noVNC keeps the text of its licence, and that of a library inside it, one folder deeper.
const NOTICE = /^((docs|vendor\/[^/]+)\/)?(licen[cs]e|notice|thirdparty)[^/]*$/i;

async function bundleWorkers() {
  const result = await build({ ...SHARED, entryPoints: WORKERS, format: "iife", entryNames: "[name].worker-[hash]" });
  const addresses = Object.keys(WORKERS).map((name) => {
    const file = result.outputFiles.find((output) => basename(output.path).startsWith(`${name}.worker-`));
    return [name, basename(file.path)];
  });
  return { result, addresses: Object.fromEntries(addresses) };
}

function bundlePage(addresses) {
  return build({
    ...SHARED,
    entryPoints: PAGES,
    format: "esm",
    splitting: true,
    jsx: "automatic",
    define: { ...SHARED.define, WORKER_FILES: JSON.stringify(addresses) },
  });
}

async function notices(metafiles) {
  const folders = new Set();
  for (const input of metafiles.flatMap((metafile) => Object.keys(metafile.inputs))) {
    const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (match) folders.add(match[1]);
  }
  const parts = [];
  for (const folder of [...folders].sort()) {
    const { name, version, license } = JSON.parse(await readFile(join(HERE, folder, "package.json"), "utf8"));
    const listed = (await readdir(join(HERE, folder), { recursive: true })).filter((file) => NOTICE.test(file));
    const texts = await Promise.all(listed.sort().map((file) => readFile(join(HERE, folder, file), "utf8")));
    parts.push([`${name} ${version} (${license})`, ...texts.map((text) => text.trim())].join("\n\n"));
  }
  return parts.join(`\n\n${"-".repeat(80)}\n\n`) + "\n";
}

/** What the pages ask for by a name without hash, and the hashed name of each: {"playground.css": "playground-…"}. */
function entriesOf(metafile) {
  const names = Object.entries(metafile.outputs).flatMap(([path, { entryPoint, cssBundle }]) =>
    Object.values(PAGES).includes(entryPoint) ? [path, ...(cssBundle ? [cssBundle] : [])] : [],
  );
  return Object.fromEntries(names.map((path) => [basename(path).replace(/-[A-Z0-9]{8}\./, "."), basename(path)]).sort());
}

/** What the playground itself sends, by hash: a gateway that runs nothing but trusted documents trusts these. */
async function documents() {
  const folder = join(HERE, "src/operations");
  const written = (await readdir(folder)).map((name) => readFile(join(folder, name), "utf8"));
  const schema = getIntrospectionQuery({ inputValueDeprecation: true, schemaDescription: true }); // as App.tsx has it
  const texts = [...(await Promise.all(written)), schema];
  const named = texts.map((text) => [createHash("sha256").update(text).digest("hex"), text]);
  return Object.fromEntries(named.sort());
}

async function main() {
  const workers = await bundleWorkers();
  const page = await bundlePage(workers.addresses);
  const files = {};
  const entries = entriesOf(page.metafile);
  for (const { path, contents } of [...workers.result.outputFiles, ...page.outputFiles]) {
    // A style sheet of a chunk is one that playground.css has already: esbuild loads none with import().
    if (!path.endsWith(".css") || Object.values(entries).includes(basename(path))) files[basename(path)] = contents;
  }
  files["third-party-notices.txt"] = Buffer.from(await notices([workers.result.metafile, page.metafile]));

  await rm(OUT, { recursive: true, force: true });
  await mkdir(OUT, { recursive: true });
  const listed = {};
  for (const name of Object.keys(files).sort()) {
    const body = Buffer.from(files[name]);
    const sha256 = createHash("sha256").update(body).digest("hex");
    listed[name] = { sha256, size_bytes: body.length };
    await writeFile(join(OUT, `${name}.gz`), gzip(body, { level: 9 }));
  }
  const manifest = { documents: await documents(), entries, files: listed };
  await writeFile(join(OUT, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");
}

await main();
