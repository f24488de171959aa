/** Whether the server can be reached, as the latest requests found, and finding it again. */

import { createStore, useStore } from './store';

const PROBE_EVERY = 2000;

/** When the connection was lost, in milliseconds since the epoch; null while there is one. */
const lostSince = createStore<number | null>(null);
const listeners = new Set<() => void>();
let timer: ReturnType<typeof setTimeout> | undefined;

export function useLostSince(): number | null {
  return useStore(lostSince);
}

export function connectionLost(): void {
  if (lostSince.get() === null) lostSince.set(Date.now());
  timer ??= setTimeout(probe, PROBE_EVERY);
}

export function connectionWorks(): void {
  if (lostSince.get() === null) return;
  clearTimeout(timer);
  timer = undefined;
  lostSince.set(null);
  for (const listener of [...listeners]) listener();
}

/** Calls back each time that a lost connection is there again. */
export function onReconnect(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

async function probe(): Promise<void> {
  timer = undefined;
  try {
    const answer = await fetch('/health/live', { cache: 'no-store' });
    if (unreachable(answer.status)) connectionLost();
    else connectionWorks();
  } catch {
    connectionLost();
  }
}

/** Whether an answer comes from a proxy that finds no server behind it. */
export function unreachable(status: number): boolean {
  return status === 502 || status === 504;
}
