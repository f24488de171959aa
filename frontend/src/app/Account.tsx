import { useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useMe } from '@/api/auth';
import { endSession } from '@/api/session';
import { Button } from '@/components/Button';
import { forgetDraft } from '@/pages/playground/draft';
import { SignInDialog } from '@/pages/SignIn';

/** Who is signed in, and the way out; for local callers without an account, the way in. */
export function Account() {
  const me = useMe().data;
  const client = useQueryClient();
  const [asked, setAsked] = useState(false);
  if (!me) return null;
  const signOut = () => {
    endSession({ expired: false });
    forgetDraft();
    client.clear();
  };
  return (
    <div className="flex items-center gap-2">
      <span
        className="max-w-14 truncate sm:max-w-28 text-muted"
        title={`tenant ${me.tenant}, role ${me.role}`}
      >
        {me.anonymous ? 'local' : me.username}
      </span>
      {me.anonymous ? (
        <Button kind="quiet" small onClick={() => setAsked(true)}>
          Sign in
        </Button>
      ) : (
        <Button kind="quiet" small onClick={signOut}>
          Sign out
        </Button>
      )}
      <SignInDialog open={asked} onClose={() => setAsked(false)} />
    </div>
  );
}
