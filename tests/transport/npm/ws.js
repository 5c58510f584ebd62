// Drives npm graphql-ws against a server and prints one JSON object of what it saw.
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

const url = process.argv[2];
const sockets = [];

const client = (token, more = {}) =>
  createClient({
    url,
    webSocketImpl: WebSocket,
    connectionParams: { authorization: `Bearer ${token}` },
    lazy: true,
    retryAttempts: 3,
    retryWait: async () => {},
    on: { opened: () => sockets.push(token) },
    ...more,
  });

// All results of an operation, or the errors (or the close event) that ended it.
const all = (from, payload) =>
  new Promise((resolve) => {
    const values = [];
    from.subscribe(payload, {
      next: (result) => values.push(result),
      error: (error) =>
        resolve(Array.isArray(error) ? { values, codes: error.map((each) => each.extensions.code) } : { values, closed: error.code }),
      complete: () => resolve({ values }),
    });
  });

const seen = {};
const alice = client('alice');

seen.query = (await all(alice, { query: '{ me }' })).values.map((each) => each.data.me);
seen.mutation = (await all(alice, { query: 'mutation { note(text: "x") }' })).values.map((each) => each.data.note);
seen.count = (await all(alice, { query: 'subscription { count(to: 3) }' })).values.map((each) => each.data.count);
seen.syntax = (await all(alice, { query: '{' })).codes;
seen.invalid = (await all(alice, { query: '{ nope }' })).codes;

// Leave in the middle, then resume after the last value that was seen.
const first = alice.iterate({ query: 'subscription { count(to: 5) }' });
const before = [(await first.next()).value.data.count, (await first.next()).value.data.count];
await first.return();
const rest = await all(alice, {
  query: 'subscription Rest($after: Int!) { count(to: 5, after: $after) }',
  variables: { after: before[1] },
});
seen.resumed = [...before, ...rest.values.map((each) => each.data.count)];

// The connection is cut under a live subscription: the client connects and subscribes again by itself.
const cut = alice.iterate({ query: 'subscription { forever }' });
await cut.next();
alice.terminate();
seen.reconnected = (await cut.next()).value.data.forever;
await cut.return();
await alice.dispose();
seen.sockets = sockets.length;

seen.expired = (await all(client('short-300', { retryAttempts: 0 }), { query: 'subscription { forever }' })).closed;
seen.refused = (await all(client('bad'), { query: '{ me }' })).closed;
console.log(JSON.stringify(seen));
process.exit(0);
