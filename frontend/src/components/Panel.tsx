import { type ReactNode, useId } from 'react';

interface Props {
  title: ReactNode;
  /** Beside the title, at the end. */
  aside?: ReactNode;
  /** Whether the content brings its own distance from the border, as tables do. */
  flush?: boolean;
  className?: string;
  children: ReactNode;
}

/** A titled part of a page. */
export function Panel({ title, aside, flush = false, className = '', children }: Props) {
  const id = useId();
  return (
    <section
      aria-labelledby={id}
      className={`min-w-0 rounded border border-line bg-panel ${className}`}
    >
      <header className="flex min-h-9 flex-wrap items-center justify-between gap-x-4 gap-y-1 border-b border-line px-3 py-1">
        <h2 id={id} className="font-semibold">
          {title}
        </h2>
        {aside}
      </header>
      <div className={flush ? '' : 'p-3'}>{children}</div>
    </section>
  );
}

interface PageTitleProps {
  title: string;
  /** Beside the title. */
  children?: ReactNode;
  actions?: ReactNode;
}

/** The heading of a page, also in the title of its tab, with what one can do there. */
export function PageTitle({ title, children, actions }: PageTitleProps) {
  return (
    <div className="flex min-h-8 flex-wrap items-center justify-between gap-x-4 gap-y-2">
      <title>{`${title} · inferstack`}</title>
      <div className="flex min-w-0 flex-wrap items-center gap-x-3 gap-y-1">
        <h1 className="min-w-0 break-words">{title}</h1>
        {children}
      </div>
      {actions && <div className="flex flex-wrap items-center gap-2">{actions}</div>}
    </div>
  );
}
