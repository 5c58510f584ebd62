// One fetcher per session: queries and mutations by POST, subscriptions by graphql-transport-ws, both with the same
// token. A new fetcher makes GraphiQL read the schema again; the old one's socket is closed by the caller.
import { createGraphiQLFetcher, type Fetcher, type FetcherParams, type Observable } from "@graphiql/toolkit";
import { Kind, parse, type OperationDefinitionNode } from "graphql";
import { createClient, type Client, type ExecutionResult, type SubscribePayload } from "graphql-ws";
import { ENDPOINT, SOCKET } from "./endpoint";
import { plain, post } from "./session";

// The gateway's close codes for a token that is not, or no longer, good.
const ENDED = [4401, 4403];

export interface Line {
  readonly fetcher: Fetcher;
  close(): void;
}

/** `onEnded` is told when the gateway refuses the token that it had accepted before. */
export function openLine(token: string | null, onEnded: () => void): Line {
  const authorization = token ? { authorization: `Bearer ${token}` } : {};
  const client = createClient({
    url: SOCKET,
    connectionParams: authorization,
    // A reconnect would start the subscription afresh and hide what was missed meanwhile: the loss is shown instead.
    retryAttempts: 0,
    on: {
      closed: (event) => {
        // Later, so that the subscription has failed with the close's reason before this client is disposed of.
        if (token && event instanceof CloseEvent && ENDED.includes(event.code)) setTimeout(onEnded);
      },
    },
  });
  const ask = createGraphiQLFetcher({
    url: ENDPOINT,
    headers: authorization,
    enableIncrementalDelivery: false,
    fetch: async (address, init) => {
      const response = await post(address, init);
      if (token && response.status === 401) onEnded();
      return response;
    },
  });
  // The toolkit could do both, but its subscriptions leave an unhandled rejection behind when the socket closes.
  const fetcher: Fetcher = (given, options) => {
    const found = operationOf(given);
    // For a moment after a tab was opened GraphiQL still gives the name (and the document) of the one before.
    const operation = found?.name ? { ...given, operationName: found.name.value } : given;
    return found?.operation === "subscription" ? watch(client, operation as SubscribePayload) : ask(operation, options);
  };
  return { fetcher, close: () => void client.dispose() };
}

/** The operation that a request means: the one it names, or the only one. Undefined where the gateway has to say why. */
function operationOf({ query, operationName }: FetcherParams): OperationDefinitionNode | undefined {
  try {
    const all = parse(query).definitions.filter((each) => each.kind === Kind.OPERATION_DEFINITION);
    return all.length === 1 ? all[0] : all.find((each) => each.name?.value === operationName);
  } catch {
    return undefined; // a syntax error
  }
}

interface Listener {
  next(result: ExecutionResult): void;
  error(problem: unknown): void;
  complete(): void;
}

function watch(client: Client, operation: SubscribePayload): Observable<ExecutionResult> {
  const subscribe = (listener: Listener) => ({
    unsubscribe: client.subscribe(operation, {
      next: (result) => listener.next(result as ExecutionResult),
      error: (problem) => listener.error(problem instanceof CloseEvent ? closed(problem) : problem),
      complete: () => listener.complete(),
    }),
  });
  return { subscribe } as Observable<ExecutionResult>; // its type also allows bare functions, which GraphiQL never passes
}

function closed({ reason, code }: CloseEvent): Error {
  return plain(`The gateway closed the connection: ${reason || "no reason given"} (${code}).`);
}
