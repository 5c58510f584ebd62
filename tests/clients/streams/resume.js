// resume.js transport url seed cuts wanted < token: reads the event log over connections that are cut at random, each
// resumed at the last cursor, until there were `cuts` of them and `wanted` events were seen. Prints what was seen.
import { readFileSync } from 'node:fs';

import { open, random } from './clients.js';

const [transport, url, seed, cuts, wanted] = process.argv.slice(2);
const { token, after: start, filter } = JSON.parse(readFileSync(0, 'utf8'));
const chance = random(Number(seed));
const seen = [];
let after = start;
let connects = 0;

async function one() {
  const most = Math.floor(chance() * 3);
  const nothingLeft = seen.length >= Number(wanted);
  const patience = new Promise((resolve) => setTimeout(resolve, most === 0 || nothingLeft ? chance() * 15 : 250, 'cut'));
  const { stream, leave } = open(transport, url, token, { after, filter });
  for (let left = most; left > 0; left -= 1) {
    const next = await Promise.race([stream.next(), patience]);
    if (next === 'cut' || next.done) break;
    if (next.value.errors) throw new Error(JSON.stringify(next.value.errors));
    const event = next.value.data.events;
    seen.push(event);
    after = event.cursor;
  }
  if (most === 0) {
    // Cut wherever the connection stands: in its handshake, before its first event, in the middle of one.
    stream.next().catch(() => {});
    await patience;
  }
  await Promise.race([leave(chance() < 0.7), new Promise((resolve) => setTimeout(resolve, 1000))]);
}

process.on('unhandledRejection', () => {}); // of connections that were cut
while (connects < Number(cuts) || seen.length < Number(wanted)) {
  connects += 1;
  await one();
}
console.log(JSON.stringify({ connects, seen }));
process.exit(0);
