import type { ReactNode } from 'react';
import { useMe } from '@/api/auth';
import { Problem } from '@/api/problem';
import { Loading, ProblemNotice } from '@/components/Notice';
import { SignIn } from '@/pages/SignIn';

/** Lets in whom the API lets in: anonymous callers on its own machine, too. */
export function Gate({ children }: { children: ReactNode }) {
  const me = useMe();
  if (me.data) return children;
  if (me.error instanceof Problem && me.error.status === 401) return <SignIn />;
  return (
    <main className="mx-auto max-w-2xl p-6">
      {me.error ? (
        <ProblemNotice error={me.error} onRetry={() => void me.refetch()} />
      ) : (
        <Loading what="inferstack" />
      )}
    </main>
  );
}
