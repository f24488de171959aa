import { act, renderHook } from '@testing-library/react';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { connectionWorks } from './connection';
import { advance, type OverviewPoint, useOverview, WINDOW } from './overview';
import { ConnectionLost, Silence } from './problem';

const queue = { high: 0, normal: 0, low: 0, delayed: 0, running: 0, outbox: 0 };
const point = (at: number): OverviewPoint => ({ at, queue, rates: null, latency: null });
const before = { points: [point(100), point(101)], sample: null, live: false, error: null };

describe('advance', () => {
  it('keeps what it saw before the history that a new stream brings', () => {
    const after = advance(before, 'history', { points: [point(101), point(102)] });
    expect(after.points.map(({ at }) => at)).toEqual([100, 101, 102]);
    expect(advance(before, 'history', { points: [] }).points).toEqual(before.points);
  });

  it('forgets what has left the window', () => {
    const after = advance(before, 'sample', { point: point(101 + WINDOW) });
    expect(after.points.map(({ at }) => at)).toEqual([101 + WINDOW]);
    expect(after.live).toBe(true);
  });
});

describe('a stream on which nothing comes', () => {
  afterEach(() => {
    connectionWorks();
    vi.useRealTimers();
  });

  const pass = (milliseconds: number) => act(() => vi.advanceTimersByTimeAsync(milliseconds));

  /** A server whose stream stalls, with or without a head; `live` is what its health answers. */
  function serve(head: boolean, live: () => Promise<Response>) {
    vi.useFakeTimers();
    vi.stubGlobal('fetch', (request: Request | string) => {
      if (typeof request === 'string') return live();
      const { signal } = request;
      const stalls = (fail: (reason: unknown) => void) =>
        signal.addEventListener('abort', () => fail(signal.reason));
      if (!head) return new Promise((_, reject) => stalls(reject));
      const start = (controller: ReadableStreamDefaultController) =>
        stalls((reason) => controller.error(reason));
      return Promise.resolve(new Response(new ReadableStream({ start })));
    });
    return renderHook(useOverview).result;
  }

  it.each([true, false])('is a lost connection if no answer comes (head: %s)', async (head) => {
    const overview = serve(head, () => Promise.reject(new TypeError('stalled')));
    await pass(4900);
    expect(overview.current.error).toBeNull();
    await pass(200);
    expect(overview.current.error).toBeInstanceOf(ConnectionLost);
  });

  it.each([true, false])('is its own error if the rest works (head: %s)', async (head) => {
    const overview = serve(head, async () => new Response());
    await pass(5100);
    expect(overview.current.error).toBeInstanceOf(Silence);
  });
});
