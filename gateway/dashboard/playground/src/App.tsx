// The page: the sign-in bar above GraphiQL, which is told only a fetcher, the examples and where it may store things.
import { ToolbarButton, ToolbarMenu, pick, useGraphiQL, useGraphiQLActions } from "@graphiql/react";
import { GraphiQL } from "graphiql";
import { useEffect, useMemo, useState } from "react";
import { EXAMPLES, type Example } from "./examples";
import { openLine } from "./fetcher";
import { SignInBar } from "./SignInBar";
import { signOut, type Session } from "./session";
import { storage } from "./storage";

export function App() {
  const [session, setSession] = useState<Session | null>(null);
  const [notice, setNotice] = useState<string | null>(null);
  const token = session?.token ?? null;
  const line = useMemo(
    () =>
      openLine(token, () => {
        setSession(null);
        setNotice("The session has ended: sign in again.");
      }),
    [token],
  );
  useEffect(() => () => line.close(), [line]);
  useExpiry(session, () => {
    setSession(null);
    setNotice("The session has expired: sign in again.");
  });

  async function leave(): Promise<void> {
    if (!session) return;
    try {
      await signOut(session);
      setNotice(null);
    } catch (error) {
      setNotice(`Signed out here, but the gateway did not revoke the session: ${(error as Error).message}`);
    }
    setSession(null);
  }

  return (
    <div className="page">
      <SignInBar
        session={session}
        notice={notice}
        onSession={(next) => {
          setNotice(null);
          setSession(next);
        }}
        onSignOut={leave}
      />
      <main className="page-editor">
        <GraphiQL
          fetcher={line.fetcher}
          storage={storage}
          defaultTabs={EXAMPLES.map(({ query, variables }) => ({ query, variables }))}
          defaultEditorToolsVisibility="variables"
          isHeadersEditorEnabled={false}
          shouldPersistHeaders={false}
          showPersistHeadersSettings={false}
          inputValueDeprecation
          schemaDescription
        >
          <GraphiQL.Logo>
            <span />
          </GraphiQL.Logo>
          <GraphiQL.Toolbar>
            {({ prettify, copy, merge }) => (
              <>
                {prettify}
                {merge}
                {copy}
                <ExampleMenu />
              </>
            )}
          </GraphiQL.Toolbar>
        </GraphiQL>
      </main>
    </div>
  );
}

function useExpiry(session: Session | null, onExpired: () => void): void {
  useEffect(() => {
    const { expiresAt } = session ?? {};
    if (!expiresAt) return undefined;
    const timer = setInterval(() => {
      if (Date.now() >= expiresAt.getTime()) onExpired();
    }, 1000);
    return () => clearInterval(timer);
  });
}

/** Opens an example in a new tab: the way back for who has closed the tabs given at the first visit. */
function ExampleMenu() {
  const { addTab } = useGraphiQLActions();
  const { queryEditor, variableEditor } = useGraphiQL(pick("queryEditor", "variableEditor"));
  function open({ query, variables }: Example): void {
    addTab();
    queryEditor?.setValue(query);
    variableEditor?.setValue(variables ?? "");
  }
  return (
    <ToolbarMenu button={<ToolbarButton label="Open an example"><BookIcon /></ToolbarButton>}>
      {EXAMPLES.map((example) => (
        <ToolbarMenu.Item key={example.title} onSelect={() => open(example)}>
          {example.title}
        </ToolbarMenu.Item>
      ))}
    </ToolbarMenu>
  );
}

function BookIcon() {
  return (
    <svg className="graphiql-toolbar-icon" viewBox="0 0 16 16" fill="none" stroke="currentColor" strokeWidth="1.4" aria-hidden="true">
      <path d="M8 3.6C6.6 2.5 4.6 2.2 2 2.4v10c2.6-.2 4.6.1 6 1.2 1.4-1.1 3.4-1.4 6-1.2v-10c-2.6-.2-4.6.1-6 1.2Zm0 0v10" />
    </svg>
  );
}
