/** Whether the server can be reached, as the latest requests found, and finding it again. */

import { createStore, useStore } from './store';

/** Milliseconds. */
const PROBE_EVERY = 2000;
const PROBE_PATIENCE = 3000;

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

/** Finds out whether the server can be reached, for everybody who follows it. */
export async function probe(): Promise<boolean> {
  clearTimeout(timer);
  timer = undefined;
  const found = await isThere();
  if (found) connectionWorks();
  else connectionLost();
  return found;
}

async function isThere(): Promise<boolean> {
  try {
    const signal = AbortSignal.timeout(PROBE_PATIENCE);
    const answer = await fetch('/health/live', { cache: 'no-store', signal });
    return !unreachable(answer.status);
  } catch {
    return false;
  }
}

/** Whether an answer comes from a proxy that finds no server behind it. */
export function unreachable(status: number): boolean {
  return status === 502 || status === 504;
}
