import { percent } from './format';

/** A share of a whole, as a bar and as a number. */
export function Meter({ share, label }: { share: number | null; label: string }) {
  if (share === null) return <span className="text-muted">–</span>;
  return (
    <span className="inline-flex items-center gap-2">
      <span
        role="meter"
        aria-label={label}
        aria-valuenow={Math.round(share * 100)}
        aria-valuemin={0}
        aria-valuemax={100}
        className="h-1.5 w-20 overflow-hidden rounded-full bg-idle-tint"
      >
        <span
          className="block h-full bg-accent"
          style={{ width: `${Math.min(100, share * 100)}%` }}
        />
      </span>
      <span className="w-10">{percent(share)}</span>
    </span>
  );
}
