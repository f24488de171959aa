import { clock, preciseClock } from './format';

interface Props {
  at: string | null | undefined;
  /** Whether milliseconds matter. */
  precise?: boolean;
}

/** A moment by the local clock; in full, and in UTC, on hover. */
export function Time({ at, precise = false }: Props) {
  if (!at) return <span className="text-muted">–</span>;
  return (
    <time dateTime={at} title={new Date(at).toISOString()}>
      {precise ? preciseClock(at) : clock(at)}
    </time>
  );
}
