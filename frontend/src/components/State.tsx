import type { ReactNode } from 'react';

type Tone = 'good' | 'bad' | 'busy' | 'warn' | 'idle';

const TONES: Record<Tone, string> = {
  good: 'bg-good-tint text-good',
  bad: 'bg-bad-tint text-bad',
  busy: 'bg-busy-tint text-busy',
  warn: 'bg-warn-tint text-warn',
  idle: 'bg-idle-tint text-idle',
};

/** What a word means, for every word that the API says of tasks, deployments and services. */
const MEANINGS: Record<string, Tone> = {
  completed: 'good',
  ready: 'good',
  healthy: 'good',
  closed: 'good',
  ok: 'good',
  running: 'busy',
  starting: 'busy',
  failed: 'bad',
  unhealthy: 'bad',
  open: 'bad',
  down: 'bad',
  expired: 'warn',
  degraded: 'warn',
  'half-open': 'warn',
  draining: 'warn',
};

/** A state, as a word on a colour that repeats it. */
export function State({ of, children }: { of: string; children?: ReactNode }) {
  const tone = TONES[MEANINGS[of] ?? 'idle'];
  return (
    <span
      className={`inline-flex items-center gap-1.5 rounded px-1.5 text-xs leading-5 font-medium ${tone}`}
    >
      <span aria-hidden="true" className="size-1.5 rounded-full bg-current" />
      {children ?? of}
    </span>
  );
}

export function PriorityMark({ of }: { of: string }) {
  const style = of === 'high' ? 'font-semibold' : of === 'low' ? 'text-muted' : '';
  return <span className={style}>{of}</span>;
}
