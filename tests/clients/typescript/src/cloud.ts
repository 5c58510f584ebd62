// A cloud as one caller sees it: urql for queries and mutations, graphql-ws for what is pushed. Both send either the
// document's text or, with `trusted`, only the hash that codegen put beside it (the manifest has the text).
import type { TypedDocumentNode } from '@graphql-typed-document-node/core';
import { Client, type CombinedError, fetchExchange, makeOperation, mapExchange, stringifyDocument } from '@urql/core';
import { Kind } from 'graphql';
import { createClient, type Client as Socket } from 'graphql-ws';
import WebSocket from 'ws';

import { type FragmentType, read } from './gql/index.js';
import type { JobFieldsFragment, JobStatus } from './gql/graphql.js';
import { JobChanged, JobFields, SignIn, SignOut } from './operations.js';

type Variables = Record<string, unknown>;

/** One reason why a mutation did not do what was asked. */
export interface Reason {
  readonly code: string;
  readonly message: string;
  readonly path?: readonly string[] | null;
}

/** What the cloud would not do. `code` is of a closed list: schema.graphql, `UserErrorCode`. */
export class Refused extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(`${code}: ${message}`);
    this.code = code;
  }
}

const ENDED: ReadonlySet<JobStatus> = new Set(['SUCCEEDED', 'FAILED', 'CANCELLED', 'STUCK']);

/** urql sends `documentId` in place of the text for a document without definitions. */
const hashesOnly = mapExchange({
  onOperation(operation) {
    const query = { kind: Kind.DOCUMENT, definitions: [], documentId: hash(operation.query) } as const;
    return makeOperation(operation.kind, { ...operation, query }, operation.context);
  },
});

export class Cloud {
  private token: string | undefined;
  private readonly http: Client;
  private readonly socket: Socket;

  constructor(
    readonly url: string,
    private readonly trusted: boolean = false,
  ) {
    this.http = new Client({
      url: `${url}/graphql`,
      exchanges: trusted ? [hashesOnly, fetchExchange] : [fetchExchange],
      preferGetMethod: false,
      fetchOptions: () => ({ headers: this.headers() }),
    });
    this.socket = createClient({
      url: `${url.replace(/^http/, 'ws')}/graphql`,
      webSocketImpl: WebSocket,
      lazy: true,
      retryAttempts: 10,
      connectionParams: () => this.headers(),
    });
  }

  private headers(): Record<string, string> {
    return this.token === undefined ? {} : { authorization: `Bearer ${this.token}` };
  }

  /** The answer's data. Throws Refused with the code of its first error. */
  async query<Data, Given extends Variables>(document: TypedDocumentNode<Data, Given>, given: Given): Promise<Data> {
    const answer = await this.http.query(document, given, { requestPolicy: 'network-only' }).toPromise();
    return this.data(answer.data, answer.error);
  }

  /** The answer's data. Throws Refused; what is in `userErrors` is yours to look at (see `accepted`). */
  async mutate<Data, Given extends Variables>(document: TypedDocumentNode<Data, Given>, given: Given): Promise<Data> {
    const answer = await this.http.mutation(document, given).toPromise();
    return this.data(answer.data, answer.error);
  }

  /** What is pushed, until the cloud ends it or the loop is left. The socket is opened again by itself. */
  async *subscribe<Data, Given extends Variables>(
    document: TypedDocumentNode<Data, Given>,
    given: Given,
  ): AsyncGenerator<Data, void, undefined> {
    const what = this.trusted ? { query: '', documentId: hash(document) } : { query: stringifyDocument(document) };
    for await (const { data, errors } of this.socket.iterate<Data>({ ...what, variables: given })) {
      const first = errors?.[0];
      if (first) throw new Refused(codeOf(first.extensions), first.message);
      if (data) yield data;
    }
  }

  async signIn(username: string, password: string): Promise<void> {
    this.token = undefined;
    const { sessionCreate } = await this.mutate(SignIn, { input: { username, password } });
    accepted(sessionCreate);
    this.token = sessionCreate.token ?? undefined;
  }

  /** Ends the session and closes the connections. */
  async signOut(): Promise<void> {
    accepted((await this.mutate(SignOut, {})).sessionRevoke);
    this.token = undefined;
    await this.socket.dispose();
  }

  /** Waits for a job's end, pushed and not polled. Throws Refused unless it SUCCEEDED. */
  async follow(job: { readonly id: string } | null, onChange?: (job: JobFieldsFragment) => void): Promise<void> {
    if (job === null) return;
    for await (const { jobChanged } of this.subscribe(JobChanged, { id: job.id })) {
      const seen = read(JobFields, jobChanged satisfies FragmentType<typeof JobFields>);
      onChange?.(seen);
      if (!ENDED.has(seen.status)) continue;
      if (seen.status === 'SUCCEEDED') return;
      throw new Refused(seen.error?.code ?? seen.status, seen.error?.message ?? `job ${seen.id} ${seen.status}`);
    }
    throw new Refused('NOT_FOUND', 'The job is not there.');
  }

  private data<Data>(data: Data | undefined, error: CombinedError | undefined): Data {
    const first = error?.graphQLErrors[0];
    if (first) throw new Refused(codeOf(first.extensions), first.message);
    if (error) throw error;
    if (data === undefined) throw new Refused('INTERNAL', 'The answer has no data.');
    return data;
  }
}

/** The payload, when it has no user errors. Throws Refused with the first. */
export function accepted<Payload extends { readonly userErrors: readonly Reason[] }>(payload: Payload): Payload {
  const [first] = payload.userErrors;
  if (first) throw new Refused(first.code, first.message);
  return payload;
}

function codeOf(extensions: { readonly [name: string]: unknown } | undefined): string {
  const code = extensions?.['code'];
  return typeof code === 'string' ? code : 'INTERNAL';
}

/** `sha256:…`, as codegen wrote it into the document and into persisted-documents.json. */
function hash(document: object): string {
  const meta = '__meta__' in document ? document.__meta__ : undefined;
  if (typeof meta === 'object' && meta !== null && 'hash' in meta && typeof meta.hash === 'string') return meta.hash;
  throw new TypeError('The document was not generated with persistedDocuments.');
}
