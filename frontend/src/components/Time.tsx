import { clock } from './format';

/** A moment by the local clock; in full, and in UTC, on hover. */
export function Time({ at }: { at: string | null | undefined }) {
  if (!at) return <span className="text-muted">–</span>;
  return (
    <time dateTime={at} title={new Date(at).toISOString()}>
      {clock(at)}
    </time>
  );
}
