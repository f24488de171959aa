import { useQueryClient } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { signIn } from '@/api/auth';
import { lastUser, useSessionExpired } from '@/api/session';
import { Button } from '@/components/Button';
import { Dialog } from '@/components/Dialog';
import { Field } from '@/components/Fields';
import { ProblemNotice } from '@/components/Notice';
import { forgetDraft } from './playground/draft';

/** The page for callers that the API does not let in without credentials. */
export function SignIn() {
  const expired = useSessionExpired();
  return (
    <main className="mx-auto mt-[12vh] w-full max-w-sm p-4">
      <title>Sign in · inferstack</title>
      <div className="rounded border border-line bg-panel p-5">
        <h1>Sign in to inferstack</h1>
        {expired && <p className="mt-1 text-warn">Your session has ended. Sign in again.</p>}
        <SignInForm />
        <p className="mt-4 text-xs text-muted">
          <code>inferstack up</code> prints the first login when it starts. With Compose and
          Kubernetes it is <code>ADMIN_USERNAME</code> and <code>ADMIN_PASSWORD</code>.
        </p>
      </div>
    </main>
  );
}

/** The same, for local callers who want to act as somebody. */
export function SignInDialog({ open, onClose }: { open: boolean; onClose: () => void }) {
  return (
    <Dialog open={open} title="Sign in" onClose={onClose}>
      {open && <SignInForm onDone={onClose} />}
    </Dialog>
  );
}

function SignInForm({ onDone }: { onDone?: () => void }) {
  const client = useQueryClient();
  const [username, setUsername] = useState('');
  const [password, setPassword] = useState('');
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const send = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    const before = lastUser();
    try {
      await signIn(username, password);
      if (before !== null && before !== username) forgetDraft();
      // What the one before saw is not for this one.
      void client.resetQueries();
      onDone?.();
    } catch (failure) {
      setError(failure);
    } finally {
      setBusy(false);
    }
  };
  return (
    <form onSubmit={send} className="mt-4 space-y-3">
      {error !== null && <ProblemNotice error={error} />}
      <Field label="Username">
        {(id) => (
          <input
            id={id}
            className="control"
            // biome-ignore lint/a11y/noAutofocus: the form is all there is to do here
            autoFocus
            autoComplete="username"
            required
            value={username}
            onChange={(event) => setUsername(event.target.value)}
          />
        )}
      </Field>
      <Field label="Password">
        {(id) => (
          <input
            id={id}
            type="password"
            className="control"
            autoComplete="current-password"
            required
            value={password}
            onChange={(event) => setPassword(event.target.value)}
          />
        )}
      </Field>
      <div className="flex gap-2">
        <Button type="submit" kind="primary" busy={busy} className="flex-1">
          Sign in
        </Button>
        {onDone && <Button onClick={onDone}>Close</Button>}
      </div>
    </form>
  );
}
