// The bar above GraphiQL: who is signed in and until when, or the form to become someone.
import { useEffect, useId, useState, type FormEvent } from "react";
import { signIn, useToken, type Session } from "./session";

const PAGE = document.documentElement.dataset;

interface Props {
  readonly session: Session | null;
  readonly notice: string | null;
  onSession(session: Session): void;
  onSignOut(): Promise<void>;
}

export function SignInBar({ session, notice, onSession, onSignOut }: Props) {
  const [problem, setProblem] = useState<string | null>(null);
  const message = problem ?? notice;
  return (
    <header className="bar">
      <div className="bar-row">
        <a className="brand" href={PAGE["home"] ?? "/"}>
          <img src={PAGE["logo"]} alt="" width="26" height="26" />
          <span className="brand-name">Stratograph</span>
          <span className="brand-page">playground</span>
        </a>
        {session ? (
          <SignedIn session={session} onSignOut={onSignOut} />
        ) : (
          <SignInForm onSession={onSession} onProblem={setProblem} />
        )}
      </div>
      {!session && message ? (
        <p className="bar-message" role="alert">
          {message}
        </p>
      ) : null}
      {session && notice ? (
        <p className="bar-message" role="status">
          {notice}
        </p>
      ) : null}
    </header>
  );
}

function SignedIn({ session, onSignOut }: Pick<Props, "onSignOut"> & { readonly session: Session }) {
  const [leaving, setLeaving] = useState(false);
  return (
    <div className="bar-session">
      <span className="bar-user" data-testid="user">
        {session.name}
      </span>
      {session.expiresAt ? <Expiry at={session.expiresAt} /> : null}
      <button
        type="button"
        className="bar-button"
        disabled={leaving}
        onClick={() => {
          setLeaving(true);
          void onSignOut();
        }}
      >
        {session.pasted ? "Forget token" : "Sign out"}
      </button>
    </div>
  );
}

function Expiry({ at }: { readonly at: Date }) {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 15_000);
    return () => clearInterval(timer);
  }, []);
  return (
    <time className="bar-expiry" dateTime={at.toISOString()} title={at.toLocaleString()}>
      expires in {duration(at.getTime() - now)}
    </time>
  );
}

/** "2 d 3 h", "11 h 59 min", "4 min", "under a minute". */
export function duration(milliseconds: number): string {
  const minutes = Math.floor(milliseconds / 60_000);
  if (minutes < 1) return "under a minute";
  const [days, hours, rest] = [Math.floor(minutes / 1440), Math.floor(minutes / 60) % 24, minutes % 60];
  const parts = days > 0 ? [`${days} d`, hours && `${hours} h`] : [hours && `${hours} h`, rest && `${rest} min`];
  return parts.filter(Boolean).join(" ");
}

interface FormProps {
  onSession(session: Session): void;
  onProblem(problem: string | null): void;
}

function SignInForm({ onSession, onProblem }: FormProps) {
  const [byToken, setByToken] = useState(false);
  const [busy, setBusy] = useState(false);

  async function submit(event: FormEvent<HTMLFormElement>): Promise<void> {
    event.preventDefault();
    const form = event.currentTarget;
    const field = (name: string) => String(new FormData(form).get(name) ?? "");
    onProblem(null);
    setBusy(true);
    try {
      onSession(byToken ? await useToken(field("token").trim()) : await signIn(field("username"), field("password")));
    } catch (error) {
      onProblem(error instanceof Error ? error.message : String(error));
      setBusy(false);
    }
  }

  return (
    <form className="bar-session" onSubmit={(event) => void submit(event)}>
      {byToken ? (
        <Field label="API key or token" name="token" type="password" autoComplete="off" wide />
      ) : (
        <>
          <Field label="User name" name="username" type="text" autoComplete="username" />
          <Field label="Password" name="password" type="password" autoComplete="current-password" />
        </>
      )}
      <button type="submit" className="bar-button bar-button-main" disabled={busy}>
        {busy ? "Signing in…" : byToken ? "Use token" : "Sign in"}
      </button>
      <button
        type="button"
        className="bar-link"
        onClick={() => {
          onProblem(null);
          setByToken(!byToken);
        }}
      >
        {byToken ? "Use a password" : "Use a token"}
      </button>
    </form>
  );
}

interface FieldProps {
  readonly label: string;
  readonly name: string;
  readonly type: "text" | "password";
  readonly autoComplete: string;
  readonly wide?: boolean;
}

function Field({ label, wide, ...input }: FieldProps) {
  const id = useId();
  return (
    <>
      <label className="bar-label" htmlFor={id}>
        {label}
      </label>
      <input id={id} className={wide ? "bar-input bar-input-wide" : "bar-input"} placeholder={label} required {...input} />
    </>
  );
}
