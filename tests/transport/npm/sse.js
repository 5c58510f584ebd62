// Drives npm graphql-sse (distinct connections) against a server and prints one JSON object of what it saw.
import { createClient } from 'graphql-sse';

const url = process.argv[2];
const client = (token) =>
  createClient({ url, fetchFn: fetch, headers: { authorization: `Bearer ${token}` }, retryAttempts: 0 });

const all = (from, payload) =>
  new Promise((resolve) => {
    const values = [];
    from.subscribe(payload, {
      next: (result) => values.push(result),
      error: (error) => resolve({ values, status: error.response?.status ?? String(error) }),
      complete: () => resolve({ values }),
    });
  });

const seen = {};
const alice = client('alice');
seen.query = (await all(alice, { query: '{ me }' })).values.map((each) => each.data.me);
seen.mutation = (await all(alice, { query: 'mutation { note(text: "x") }' })).values.map((each) => each.data.note);
seen.count = (await all(alice, { query: 'subscription { count(to: 3) }' })).values.map((each) => each.data.count);
seen.invalid = (await all(alice, { query: '{ nope }' })).values.map((each) => each.errors[0].extensions.code);

// Leave in the middle, then resume after the last value that was seen.
const first = alice.iterate({ query: 'subscription { count(to: 5) }' });
const before = [(await first.next()).value.data.count, (await first.next()).value.data.count];
await first.return();
const rest = await all(alice, {
  query: 'subscription Rest($after: Int!) { count(to: 5, after: $after) }',
  variables: { after: before[1] },
});
seen.resumed = [...before, ...rest.values.map((each) => each.data.count)];

const left = alice.iterate({ query: 'subscription { forever }' });
seen.left = (await left.next()).value.data.forever;
await left.return();
seen.refused = (await all(client('bad'), { query: '{ me }' })).status;
console.log(JSON.stringify(seen));
process.exit(0);
