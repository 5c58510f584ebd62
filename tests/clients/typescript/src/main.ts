// A server's life from a typed client: ground to stand on, plan, create, follow, look, delete, follow, clean up.
//
//   STRATOGRAPH_PASSWORD=… node dist/main.js [url, or STRATOGRAPH_URL]
//
// STRATOGRAPH_TRUSTED=1 sends hashes instead of documents. Progress goes to stderr, the outcome to stdout as JSON.
import { randomUUID } from 'node:crypto';

import { accepted, Cloud, Refused } from './cloud.js';
import type { JobFieldsFragment, ServerCreateInput } from './gql/graphql.js';
import { read } from './gql/index.js';
import * as ops from './operations.js';

const url = process.argv[2] ?? process.env['STRATOGRAPH_URL'] ?? 'http://127.0.0.1:8080';
const password = process.env['STRATOGRAPH_PASSWORD'];
if (password === undefined) throw new Error('STRATOGRAPH_PASSWORD is not set (see .state/admin-password)');

const cloud = new Cloud(url, process.env['STRATOGRAPH_TRUSTED'] === '1');
const say = (job: JobFieldsFragment): void => {
  console.error(`${job.kind} ${job.status} ${Math.round(job.progress * 100)} %`);
};
const run = randomUUID().slice(0, 8);

/** A raw disk without anything on it; big data goes to a signed URL, never through GraphQL. */
async function makeImage(tenantId: string): Promise<string> {
  const { image } = accepted((await cloud.mutate(ops.CreateImage, { input: { name: `disk-${run}`, tenantId } })).imageCreate);
  if (!image?.upload) throw new Refused('INVALID_STATE', 'The image takes no data.');
  const disk = new Uint8Array(2 << 20);
  disk.set([0x55, 0xaa], 510);
  const put = await fetch(image.upload.url, { method: 'PUT', body: disk });
  if (!put.ok) throw new Refused('IMAGE_REFUSED', `${put.status} ${await put.text()}`);
  const look = async () => (await cloud.query(ops.ImageState, { id: image.id })).image;
  await cloud.follow((await look())?.activeJob ?? null, say);
  const state = await look();
  if (state?.status !== 'ACTIVE') throw new Refused('IMAGE_REFUSED', state?.statusReason ?? 'the image is gone');
  return image.id;
}

async function makeNetwork(tenantId: string): Promise<string> {
  const input = { name: `net-${run}`, tenantId };
  const { network } = accepted((await cloud.mutate(ops.CreateNetwork, { input })).networkCreate);
  if (!network) throw new Refused('NOT_FOUND', 'No network.');
  const subnet = { networkId: network.id, cidr: '10.42.0.0/24' };
  await cloud.follow(accepted((await cloud.mutate(ops.CreateSubnet, { input: subnet })).subnetCreate).job, say);
  return network.id;
}

async function life(input: ServerCreateInput): Promise<readonly string[]> {
  const { serverCreatePlan: plan } = await cloud.query(ops.PlanServer, { input });
  accepted(plan);
  if (!plan.possible) throw new Refused('NO_VALID_HOST', 'The plan says that it would not fit.');

  const made = accepted((await cloud.mutate(ops.CreateServer, { input })).serverCreate);
  const server = read(ops.ServerFields, made.server);
  const job = read(ops.JobFields, made.job);
  if (!server || !job) throw new Refused('NOT_FOUND', 'No server.');
  const seen: string[] = [server.status];

  // The same key once more: the same server, not a second one.
  const again = read(ops.ServerFields, accepted((await cloud.mutate(ops.CreateServer, { input })).serverCreate).server);
  if (again?.id !== server.id) throw new Error('sent twice, made twice');

  await cloud.follow(job, say);
  const active = read(ops.ServerFields, (await cloud.query(ops.ServerState, { id: server.id })).server);
  if (!active) throw new Refused('NOT_FOUND', 'The server is gone.');
  seen.push(active.status);
  console.error(`${active.name} ${active.status} ${active.addresses.join(' ')} on ${active.hypervisor ?? '?'}`);

  await cloud.follow(accepted((await cloud.mutate(ops.DeleteServer, { input: { id: server.id } })).serverDelete).job, say);
  const { server: left } = await cloud.query(ops.ServerState, { id: server.id });
  seen.push(left === null ? 'GONE' : read(ops.ServerFields, left).status);
  return seen;
}

/** How the gateway takes a document that nobody put into the manifest: `accepted`, or the code of the refusal. */
async function foreign(): Promise<string> {
  const answer = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query: '{ __typename }' }),
  });
  const body: unknown = await answer.json();
  const found = /"code":"(\w+)"/.exec(JSON.stringify(body));
  return found?.[1] ?? 'accepted';
}

await cloud.signIn('admin', password);
const { viewer, flavors } = await cloud.query(ops.Ground, { flavor: 'tiny' });
const [flavor] = flavors.nodes;
if (!flavor) throw new Refused('NOT_FOUND', 'There is no flavor called tiny.');
const { tenant } = accepted((await cloud.mutate(ops.CreateTenant, { input: { name: `ts-${run}` } })).tenantCreate);
if (!tenant) throw new Refused('NOT_FOUND', 'No tenant.');
const [networkId, imageId] = [await makeNetwork(tenant.id), await makeImage(tenant.id)];
const seen = await life({
  name: `web-${run}`,
  tenantId: tenant.id,
  flavorId: flavor.id,
  imageId,
  networks: [{ networkId }],
  idempotencyKey: `web-${run}`,
});

await cloud.follow(accepted((await cloud.mutate(ops.DeleteImage, { input: { id: imageId } })).imageDelete).job);
await cloud.follow(accepted((await cloud.mutate(ops.DeleteNetwork, { input: { id: networkId } })).networkDelete).job);
accepted((await cloud.mutate(ops.DeleteTenant, { input: { id: tenant.id } })).tenantDelete);
const outcome = { user: viewer?.user?.name, server: seen, foreign: await foreign() };
await cloud.signOut();
console.log(JSON.stringify(outcome));
