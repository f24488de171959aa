import { describe, expect, it } from 'vitest';
import { areaPath, linePath, nearest, roundUp, stacked } from './chart';

const frame = { width: 100, height: 50, from: 0, to: 100, top: 10 };

describe('charts', () => {
  it('have round scales', () => {
    expect([0, 0.3, 1, 1.01, 2.2, 7, 130, 2600].map(roundUp)).toEqual([
      1, 0.5, 1, 2, 2.5, 10, 200, 5000,
    ]);
  });

  it('break a line where nothing is known, or nobody looked', () => {
    expect(linePath([0, 1, 2, 3], [0, 10, null, 5], frame)).toBe('M0 50L1 0M3 25h0.01');
    expect(linePath([0, 1, 60, 61], [0, 0, 10, 10], frame)).toBe('M0 50L1 50M60 0L61 0');
  });

  it('close an area at the axis', () => {
    expect(areaPath([0, 1], [10, 10], frame)).toBe('M0 0L1 0L1 50L0 50Z');
  });

  it('stack parts of a whole', () => {
    const line = (values: (number | null)[]) => ({ name: '', color: '', values });
    expect(stacked([line([1, 2]), line([3, 4])]).map(({ values }) => values)).toEqual([
      [1, 2],
      [4, 6],
    ]);
  });

  it('find the point under the pointer', () => {
    expect(nearest([0, 50, 100], 60, frame)).toBe(1);
    expect(nearest([], 60, frame)).toBe(-1);
  });
});
