import type { ButtonHTMLAttributes } from 'react';

type Kind = 'primary' | 'plain' | 'danger' | 'quiet';

const KINDS: Record<Kind, string> = {
  primary: 'border-accent bg-accent text-on-accent hover:brightness-110',
  plain: 'border-strong-line bg-panel text-ink hover:bg-sunken',
  danger: 'border-bad bg-panel text-bad hover:bg-bad-tint',
  quiet: 'border-transparent text-muted hover:bg-sunken hover:text-ink',
};

interface Props extends ButtonHTMLAttributes<HTMLButtonElement> {
  kind?: Kind;
  small?: boolean;
  /** Whether what it started still goes on. */
  busy?: boolean;
}

export function buttonClass(kind: Kind = 'plain', small = false): string {
  const size = small ? 'h-6 px-2 text-xs' : 'h-8 px-3';
  return `inline-flex items-center justify-center gap-1.5 rounded border font-medium whitespace-nowrap disabled:opacity-60 ${size} ${KINDS[kind]}`;
}

export function Button({ kind, small, busy, disabled, className = '', ...rest }: Props) {
  return (
    <button
      type="button"
      className={`${buttonClass(kind, small)} ${className}`}
      disabled={disabled || busy}
      aria-busy={busy || undefined}
      {...rest}
    />
  );
}
