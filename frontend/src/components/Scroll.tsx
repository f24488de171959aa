import type { ReactNode } from 'react';

/** Lets a wide table scroll by itself instead of the page. */
export function Scroll({ label, children }: { label: string; children: ReactNode }) {
  return (
    <section aria-label={label} tabIndex={0} className="relative overflow-x-auto">
      {children}
    </section>
  );
}
