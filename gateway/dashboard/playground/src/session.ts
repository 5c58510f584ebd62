// Sign-in, sign-out and what is known of the session. The token lives in a variable of this page and nowhere else: a
// reload signs out, and no storage, cookie or address ever holds it.
import SIGN_IN from "./operations/SignIn.graphql";
import SIGN_OUT from "./operations/SignOut.graphql";
import WHO_AM_I from "./operations/WhoAmI.graphql";
import { ENDPOINT } from "./endpoint";
import { rememberSecret } from "./storage";

export interface Session {
  readonly token: string;
  readonly name: string;
  /** By this machine's clock, which may differ from the gateway's. */
  readonly expiresAt: Date | null;
  /** A pasted token belongs to whoever made it: leaving the page's session must not revoke it. */
  readonly pasted: boolean;
}

interface Problem {
  readonly message: string;
}
interface Answer<Data> {
  readonly data?: Data | null;
  readonly errors?: readonly Problem[];
}

export async function signIn(username: string, password: string): Promise<Session> {
  interface Data {
    sessionCreate: {
      token: string | null;
      expiresAt: string | null;
      user: { name: string } | null;
      userErrors: readonly Problem[];
    };
  }
  rememberSecret(password);
  const { sessionCreate } = await ask<Data>(SIGN_IN, { input: { username, password } });
  refuse(sessionCreate.userErrors);
  if (!sessionCreate.token) throw new Error("The gateway gave no token.");
  rememberSecret(sessionCreate.token);
  return {
    token: sessionCreate.token,
    name: sessionCreate.user?.name ?? username,
    expiresAt: localTime(sessionCreate.expiresAt),
    pasted: false,
  };
}

export async function useToken(token: string): Promise<Session> {
  interface Data {
    viewer: { user: { name: string } | null; expiresAt: string | null } | null;
  }
  rememberSecret(token);
  const { viewer } = await ask<Data>(WHO_AM_I, {}, token);
  if (!viewer) throw new Error("The gateway does not know this token, or it has expired.");
  return {
    token,
    name: viewer.user?.name ?? "API key",
    expiresAt: localTime(viewer.expiresAt),
    pasted: true,
  };
}

export async function signOut(session: Session): Promise<void> {
  if (session.pasted) return;
  interface Data {
    sessionRevoke: { userErrors: readonly Problem[] };
  }
  const { sessionRevoke } = await ask<Data>(SIGN_OUT, { input: {} }, session.token);
  refuse(sessionRevoke.userErrors);
}

// How far the gateway's clock is ahead of ours, told by the Date of its answers. Under five seconds it may be the way.
let clockAhead = 0;

function noticeClock(response: Response): void {
  const ahead = Date.parse(response.headers.get("date") ?? "") - Date.now();
  clockAhead = Math.abs(ahead) > 5000 ? ahead : 0;
}

function localTime(gatewayTime: string | null): Date | null {
  return gatewayTime ? new Date(Date.parse(gatewayTime) - clockAhead) : null;
}

function refuse(problems: readonly Problem[]): void {
  if (problems.length > 0) throw new Error(problems.map((problem) => problem.message).join(" "));
}

async function ask<Data>(query: string, variables: object, token?: string): Promise<Data> {
  const response = await post(ENDPOINT, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/graphql-response+json, application/json;q=0.9",
      ...(token ? { authorization: `Bearer ${token}` } : {}),
    },
    body: JSON.stringify({ query, variables }),
  });
  noticeClock(response);
  const answer = (await response.json()) as Answer<Data>;
  refuse(answer.errors ?? []);
  if (!answer.data) throw new Error(`The gateway answered ${response.status} without data.`);
  return answer.data;
}

/** fetch, but a gateway that cannot be reached or does not speak JSON is told in words. */
export async function post(address: RequestInfo | URL, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(address, { ...init, credentials: "omit", cache: "no-store" });
  } catch {
    throw plain("The gateway cannot be reached.");
  }
  if (!/json/.test(response.headers.get("content-type") ?? "")) {
    throw plain(`The gateway answered ${response.status} ${response.statusText}, not JSON.`);
  }
  return response;
}

/** GraphiQL prints an error with its stack, which says nothing to its reader. */
export function plain(message: string): Error {
  const error = new Error(message);
  delete error.stack;
  return error;
}
