import { percent } from './format';

/** A share of a whole, as a bar and as a number. */
export function Meter({ share }: { share: number | null }) {
  if (share === null) return <span className="text-muted">–</span>;
  return (
    <span className="inline-flex items-center gap-2">
      <span aria-hidden="true" className="h-1.5 w-20 overflow-hidden rounded-full bg-idle-tint">
        <span
          className="block h-full bg-accent"
          style={{ width: `${Math.min(100, share * 100)}%` }}
        />
      </span>
      <span className="w-10">{percent(share)}</span>
    </span>
  );
}
