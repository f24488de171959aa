import type { ReactNode } from 'react';
import { Link } from 'react-router';
import { advice, ConnectionLost, detailOf, Problem, titleOf } from '@/api/problem';
import { Button } from './Button';
import { shortId } from './format';
import { WarningIcon } from './icons';

/** An error: what happened, where, and what to do. */
export function ProblemNotice({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const fields = error instanceof Problem ? error.errors : [];
  const [title, detail] = [titleOf(error), detailOf(error)];
  const says = detail.toLowerCase() === title.toLowerCase() ? '' : detail;
  return (
    <div role="alert" className="flex gap-2 rounded border border-bad bg-bad-tint p-3 text-bad">
      <WarningIcon />
      <div className="min-w-0 flex-1 space-y-1">
        <p className="font-semibold">{title}</p>
        {fields.length > 0 ? (
          <ul className="list-disc pl-4 break-words">
            {fields.map((item) => (
              <li key={`${item.field} ${item.message}`}>
                <code>{item.field}</code>: {item.message}
              </li>
            ))}
          </ul>
        ) : (
          says && <p className="break-words">{says}</p>
        )}
        <p className="text-ink">
          {advice(error)} {error instanceof Problem && <Concerned problem={error} />}
        </p>
        {onRetry && mayPass(error) && (
          <Button small onClick={onRetry}>
            Try again
          </Button>
        )}
      </div>
    </div>
  );
}

/** The task that a request may have made, although it failed. */
function Concerned({ problem: { status, taskId } }: { problem: Problem }) {
  if (taskId === null || status < 500) return null;
  return (
    <>
      See{' '}
      <Link className="link" to={`/tasks/${taskId}`}>
        task {shortId(taskId)}
      </Link>
      .
    </>
  );
}

/** Why what is shown is not refreshed. A lost connection is told at the top of every page. */
export function Outdated({ error }: { error: unknown }) {
  if (!error || error instanceof ConnectionLost) return null;
  return <ProblemNotice error={error} />;
}

/** Whether the same request may succeed later. A lost connection is tried again anyway. */
function mayPass(error: unknown): boolean {
  if (error instanceof ConnectionLost) return false;
  return !(error instanceof Problem) || error.status >= 500 || error.retryAfter !== null;
}

/** That there is nothing, and what would change that. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="px-4 py-8 text-center text-muted">
      <p className="font-medium text-ink">{title}</p>
      {children && <p className="mt-1">{children}</p>}
    </div>
  );
}

/** That something is on its way. */
export function Loading({ what }: { what: string }) {
  return (
    <p role="status" className="px-4 py-8 text-center text-muted">
      Loading {what}…
    </p>
  );
}

interface QueryState {
  error: unknown;
  isPending: boolean;
  refetch: () => unknown;
}

/** What stands in the place of data that is not there; nothing once it is. */
export function Missing({ query, what }: { query: QueryState; what: string }) {
  if (query.error) return <ProblemNotice error={query.error} onRetry={() => query.refetch()} />;
  return query.isPending ? <Loading what={what} /> : null;
}
