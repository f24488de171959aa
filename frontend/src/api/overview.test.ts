import { describe, expect, it } from 'vitest';
import { advance, type OverviewPoint, WINDOW } from './overview';

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
