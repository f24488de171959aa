import type { ReactNode } from 'react';

interface Props {
  label: string;
  /** The cells of the first row. */
  head: ReactNode;
  /** Whether it shows what is about to be replaced. */
  stale?: boolean;
  /** One or more bodies. */
  children: ReactNode;
}

/** A table that scrolls by itself where it is wider than the page. */
export function Table({ label, head, stale = false, children }: Props) {
  return (
    <section aria-label={label} tabIndex={0} className="relative overflow-x-auto">
      <table className={`table ${stale ? 'opacity-60' : ''}`}>
        <thead>
          <tr>{head}</tr>
        </thead>
        {children}
      </table>
    </section>
  );
}

/** A deployment's name in a table: it is cut where it is long, its version never. */
export function DeploymentName({ model, version }: { model: string; version: number }) {
  return (
    <span className="flex">
      <span className="truncate">{model}</span>:{version}
    </span>
  );
}

/** Titles of columns: of those with text, then of those with numbers. */
export function Titles({ texts, numbers }: { texts: string[]; numbers: string[] }) {
  return (
    <>
      {texts.map((text) => (
        <th key={text}>{text}</th>
      ))}
      {numbers.map((number) => (
        <th key={number} className="number">
          {number}
        </th>
      ))}
    </>
  );
}
