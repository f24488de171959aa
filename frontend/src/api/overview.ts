/** The live overview: one stream, opened while a page shows it and its tab is visible. */

import { useEffect, useState } from 'react';
import { type Schemas, send } from './client';
import { probe } from './connection';
import { ConnectionLost, Silence } from './problem';
import { readEvents } from './sse';

export type OverviewSample = Schemas['OverviewSample'];
export type OverviewPoint = Schemas['OverviewPoint'];
export type Percentiles = Schemas['Percentiles'];

/** Seconds that the charts show. */
export const WINDOW = 300;
/** Milliseconds without an event after which a stream counts as dead; one comes every second. */
const SILENCE = 5000;
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 5000;

export interface Overview {
  points: OverviewPoint[];
  sample: OverviewSample | null;
  /** Whether the sample is of now. */
  live: boolean;
  error: unknown;
}

const NOTHING: Overview = { points: [], sample: null, live: false, error: null };

export function useOverview(): Overview {
  const [overview, setOverview] = useState(NOTHING);
  useEffect(() => {
    const listener = new Listener((change) => setOverview(change));
    const follow = () => (document.hidden ? listener.stop() : listener.start());
    follow();
    document.addEventListener('visibilitychange', follow);
    return () => {
      document.removeEventListener('visibilitychange', follow);
      listener.stop();
    };
  }, []);
  return overview;
}

type Update = (change: (before: Overview) => Overview) => void;

/** Keeps a stream open: opens it again, a little later each time, until it is stopped. */
class Listener {
  private running: AbortController | null = null;
  private readonly update: Update;

  constructor(update: Update) {
    this.update = update;
  }

  start(): void {
    if (this.running) return;
    this.running = new AbortController();
    void this.run(this.running.signal);
  }

  stop(): void {
    this.running?.abort();
    this.running = null;
    this.update((before) => ({ ...before, live: false }));
  }

  private async run(stopped: AbortSignal): Promise<void> {
    let pause = FIRST_PAUSE;
    while (!stopped.aborted) {
      const error = await this.listen(stopped, () => {
        pause = FIRST_PAUSE;
      });
      if (stopped.aborted) return;
      // A stream that ended in order (the server ends them now and then) is opened again unseen.
      if (error !== null) this.update((before) => ({ ...before, live: false, error }));
      await sleep(pause, stopped);
      pause = Math.min(LONGEST_PAUSE, pause * 2);
    }
  }

  /** Follows one stream to its end; returns why it broke. */
  private async listen(stopped: AbortSignal, works: () => void): Promise<unknown> {
    const silent = new AbortController();
    const signal = AbortSignal.any([stopped, silent.signal]);
    let alarm = setTimeout(() => silent.abort(), SILENCE);
    try {
      const request = new Request(`${window.location.origin}/api/overview/stream`, {
        signal,
        cache: 'no-store',
      });
      const response = await send(request);
      if (response.body === null) return null;
      for await (const { event, data } of readEvents(response.body)) {
        clearTimeout(alarm);
        alarm = setTimeout(() => silent.abort(), SILENCE);
        if (event === 'sample') works();
        const found: unknown = JSON.parse(data);
        this.update((before) => advance(before, event, found));
      }
      return null;
    } catch (error) {
      if (!silent.signal.aborted || stopped.aborted) return error;
      return (await probe()) ? new Silence(SILENCE / 1000) : new ConnectionLost();
    } finally {
      clearTimeout(alarm);
    }
  }
}

/** What is known after one more event. */
export function advance(before: Overview, event: string, data: unknown): Overview {
  if (event === 'history') {
    const { points } = data as Schemas['OverviewHistory'];
    const first = points[0]?.at ?? Number.POSITIVE_INFINITY;
    return { ...before, points: [...before.points.filter((p) => p.at < first), ...points] };
  }
  if (event !== 'sample') return before;
  const sample = data as OverviewSample;
  const points = before.points.filter((point) => point.at > sample.point.at - WINDOW);
  return { points: [...points, sample.point], sample, live: true, error: null };
}

function sleep(milliseconds: number, stopped: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    stopped.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
