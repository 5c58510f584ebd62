// What GraphiQL may keep in local storage: tabs, history, theme, sizes, and no secret. A tab or a history entry that
// holds a token or password this page has seen, or writes one in its arguments, is left out; the rest is kept.
const seen = new Set<string>();
const WRITTEN = /(password|secret|token|authorization|userdata)[\\"']*\s*:\s*[\\"']+[^\\"'\s]/i;

export function rememberSecret(secret: string): void {
  if (secret.length >= 4) seen.add(secret);
}

export const storage = {
  get length(): number {
    return keys().length;
  },
  getItem: (key: string): string | null => localStorage.getItem(key),
  removeItem: (key: string): void => localStorage.removeItem(key),
  clear: (): void => keys().forEach((key) => localStorage.removeItem(key)),
  setItem(key: string, value: string): void {
    const kept = withoutSecrets(value);
    if (kept === null) localStorage.removeItem(key);
    else localStorage.setItem(key, kept);
  },
};

function keys(): string[] {
  return Object.keys(localStorage).filter((key) => key.startsWith("graphiql:"));
}

function withoutSecrets(value: string): string | null {
  if (!isSecret(value)) return value;
  const lists = parseLists(value);
  if (lists === null) return null;
  for (const [name, items] of Object.entries(lists)) {
    if (Array.isArray(items)) lists[name] = items.filter((item) => !isSecret(JSON.stringify(item)));
  }
  const kept = JSON.stringify(lists);
  return isSecret(kept) ? null : kept;
}

function isSecret(text: string): boolean {
  return WRITTEN.test(text) || [...seen].some((secret) => text.includes(secret) || text.includes(escaped(secret)));
}

function escaped(secret: string): string {
  return JSON.stringify(secret).slice(1, -1);
}

function parseLists(value: string): Record<string, unknown> | null {
  try {
    const parsed: unknown = JSON.parse(value);
    return typeof parsed === "object" && parsed !== null ? (parsed as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
