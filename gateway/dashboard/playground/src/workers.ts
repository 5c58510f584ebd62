// Monaco's three workers, as files of this origin beside the bundle. graphiql's own set-up modules fetch them from a
// public host or need webpack or Vite; build.mjs replaces WORKER_FILES by the hashed names.
declare const WORKER_FILES: { editor: string; json: string; graphql: string };

(globalThis as { MonacoEnvironment?: unknown }).MonacoEnvironment = {
  getWorker(_id: string, label: string): Worker {
    const file = label === "json" || label === "graphql" ? WORKER_FILES[label] : WORKER_FILES.editor;
    return new Worker(new URL(file, import.meta.url), { name: label });
  },
};
