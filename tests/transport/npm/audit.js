// Runs the GraphQL over HTTP audits against a server and prints a JSON list of {id, name, status, reason}.
import { auditServer } from 'graphql-http';

const results = await auditServer({ url: process.argv[2], fetchFn: fetch });
const shown = results.map(({ id, name, status, ...rest }) => ({ id, name, status, reason: rest.reason ?? null }));
console.log(JSON.stringify(shown));
