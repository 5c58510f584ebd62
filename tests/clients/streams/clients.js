// One subscription on a connection of its own, by npm graphql-ws or graphql-sse, and the ways in which it may end.
import { createClient as overSse } from 'graphql-sse';
import { createClient as overWebSocket } from 'graphql-ws';
import WebSocket from 'ws';

// A socket that is cut while it opens says so to nobody: graphql-ws has stopped listening by then.
class Socket extends WebSocket {
  constructor(...given) {
    super(...given);
    this.on('error', () => {});
  }
}

const EVENTS = `subscription($after: String, $filter: EventFilter) {
  events(after: $after, filter: $filter) { cursor kind objectId version } }`;

/** `{ stream, leave }`: events, and how to go (`cut`: without a word; otherwise as the protocol wants it). */
export function open(transport, url, token, variables) {
  const authorization = `Bearer ${token}`;
  const request = { query: EVENTS, variables };
  if (transport === 'sse') {
    const client = overSse({ url, headers: { authorization }, retryAttempts: 0 });
    const stream = client.iterate(request);
    return { stream, leave: async (cut) => (cut ? client.dispose() : stream.return()) };
  }
  const client = overWebSocket({
    url: url.replace(/^http/, 'ws'),
    webSocketImpl: Socket,
    connectionParams: { authorization },
    retryAttempts: 0,
  });
  const stream = client.iterate(request);
  const leave = async (cut) => {
    if (cut) return client.terminate();
    await stream.return();
    await client.dispose();
  };
  return { stream, leave };
}

/** Numbers in [0, 1) that are the same for the same seed (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
