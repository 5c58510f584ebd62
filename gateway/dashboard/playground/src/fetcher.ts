// One fetcher per session: queries and mutations by POST, subscriptions by graphql-transport-ws, both with the same
// token. A new fetcher makes GraphiQL read the schema again; the old one's socket is closed by the caller.
import { createGraphiQLFetcher, type Fetcher } from "@graphiql/toolkit";
import { createClient } from "graphql-ws";
import { ENDPOINT, SOCKET } from "./endpoint";
import { post } from "./session";

const FORBIDDEN = 4403;

export interface Line {
  readonly fetcher: Fetcher;
  close(): void;
}

export function openLine(token: string | null, onRefused: () => void): Line {
  const authorization = token ? { authorization: `Bearer ${token}` } : {};
  const client = createClient({
    url: SOCKET,
    connectionParams: authorization,
    // A reconnect would start the subscription afresh and hide what was missed meanwhile: the loss is shown instead.
    retryAttempts: 0,
    on: {
      closed: (event) => {
        if (event instanceof CloseEvent && event.code === FORBIDDEN) onRefused();
      },
    },
  });
  const fetcher = createGraphiQLFetcher({
    url: ENDPOINT,
    headers: authorization,
    fetch: post,
    wsClient: client,
    enableIncrementalDelivery: false,
  });
  return { fetcher, close: () => void client.dispose() };
}
