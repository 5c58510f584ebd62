// How Relay reaches the gateway: fetch for queries and mutations, server-sent events for subscriptions.
import {
  Environment,
  type FetchFunction,
  type GraphQLResponse,
  Network,
  Observable,
  RecordSource,
  Store,
  type SubscribeFunction,
} from 'relay-runtime';

export function createEnvironment(url: string, token: () => string | null): Environment {
  const send = (text: string | null | undefined, variables: object, accept: string): Promise<Response> => {
    const bearer = token();
    return fetch(`${url}/graphql`, {
      method: 'POST',
      headers: {
        accept,
        'content-type': 'application/json',
        ...(bearer === null ? {} : { authorization: `Bearer ${bearer}` }),
      },
      body: JSON.stringify({ query: text, variables }),
    });
  };

  const ask: FetchFunction = async ({ text }, variables) => {
    const response = await send(text, variables, 'application/graphql-response+json, application/json');
    return (await response.json()) as GraphQLResponse;
  };

  const subscribe: SubscribeFunction = ({ text }, variables) =>
    Observable.create<GraphQLResponse>((sink) => {
      let left = false;
      const pump = async (): Promise<void> => {
        const response = await send(text, variables, 'text/event-stream');
        const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
        let rest = '';
        while (reader && !left) {
          const { value, done } = await reader.read();
          if (done) break;
          const events = (rest + value).split('\n\n');
          rest = events.pop() ?? '';
          for (const event of events) {
            const data = /^data: (\{.*)$/m.exec(event)?.[1];
            if (data !== undefined && /^event: next$/m.test(event)) sink.next(JSON.parse(data) as GraphQLResponse);
          }
        }
        await reader?.cancel();
        sink.complete();
      };
      pump().catch((error: unknown) => sink.error(error instanceof Error ? error : new Error(String(error))));
      return () => {
        left = true;
      };
    });

  return new Environment({ network: Network.create(ask, subscribe), store: new Store(new RecordSource()) });
}
