import type { ReactNode } from 'react';
import { Button } from './Button';

interface Props {
  label: string;
  /** Where the page that is shown begins; undefined for the newest. */
  cursor: string | undefined;
  /** Where the next one begins; null if there is none. */
  next: string | null;
  /** Whether what is shown is about to be replaced: its next page is that of another filter. */
  stale: boolean;
  onGo: (cursor: string) => void;
  children?: ReactNode;
}

/** Towards what is older, and back to the newest; the browser's own way back works as well. */
export function Pager({ label, cursor, next, stale, onGo, children }: Props) {
  return (
    <nav aria-label={label} className="flex items-center gap-2">
      {children}
      <Button small disabled={!cursor} onClick={() => onGo('')}>
        Newest
      </Button>
      <Button small disabled={stale || !next} onClick={() => onGo(next ?? '')}>
        Older
      </Button>
    </nav>
  );
}
