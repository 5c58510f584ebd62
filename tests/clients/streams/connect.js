// connect.js transport url connects atOnce < token: so many subscriptions are opened and left, some of them cut. Prints
// how many were answered.
import { readFileSync } from 'node:fs';

import { open, random } from './clients.js';

const [transport, url, connects, atOnce] = process.argv.slice(2);
const { token, after } = JSON.parse(readFileSync(0, 'utf8'));
const chance = random(1);
let left = Number(connects);
let answered = 0;

async function visit() {
  while (left > 0) {
    left -= 1;
    const { stream, leave } = open(transport, url, token, { after, filter: { nouns: ['tenant'] } });
    const { value } = await stream.next();
    if (value?.data?.events) answered += 1;
    await leave(chance() < 0.5);
  }
}

process.on('unhandledRejection', () => {}); // of connections that were cut
await Promise.all(Array.from({ length: Number(atOnce) }, visit));
console.log(JSON.stringify({ answered }));
process.exit(0);
