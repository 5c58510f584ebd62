// Where the schema is served, as the page was told (a gateway behind a proxy may live under a prefix).
const stated = document.documentElement.dataset["endpoint"] ?? "/graphql";

export const ENDPOINT = new URL(stated, location.href).href;
export const SOCKET = ENDPOINT.replace(/^http/, "ws");
