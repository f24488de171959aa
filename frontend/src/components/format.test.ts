import { describe, expect, it } from 'vitest';
import { age, bytes, clock, counted, milliseconds, rate, seconds } from './format';
import { formatJson, isCut } from './json';

describe('numbers', () => {
  it('have the unit that suits them', () => {
    expect([0, 0.034, 4.26, 17.5, 1730, 75_000].map(milliseconds)).toEqual([
      '0 ms',
      '0.03 ms',
      '4.3 ms',
      '18 ms',
      '1.73 s',
      '1 min 15 s',
    ]);
    expect([59.96, 60, 3600, 3725, 90_061].map(seconds)).toEqual([
      '60.0 s',
      '1 min',
      '1 h',
      '1 h 2 min',
      '1 d 1 h',
    ]);
    expect([0, 1, 1200].map((n) => counted(n, 'task'))).toEqual([
      '0 tasks',
      '1 task',
      '1,200 tasks',
    ]);
    expect([0, 0.254, 4.21, 1234.5].map(rate)).toEqual(['0', '0.25', '4.2', '1,235']);
    expect([512, 1536, 6.5 * 2 ** 30].map(bytes)).toEqual(['512 B', '1.5 KiB', '6.5 GiB']);
    expect(age(3.8)).toBe('3 s');
    expect(milliseconds(null)).toBe('–');
  });

  it('times of other days carry their date', () => {
    const now = new Date(2026, 10, 24, 13, 0);
    expect(clock(new Date(2026, 10, 24, 9, 5, 7).toISOString(), now)).toBe('09:05:07');
    expect(clock(new Date(2026, 10, 23, 9, 5, 7).toISOString(), now)).toBe('2026-11-23 09:05:07');
  });
});

describe('formatJson', () => {
  it('keeps short lists on one line and wraps long ones', () => {
    expect(formatJson({ a: [1, 2], b: {}, c: [] })).toBe(
      '{\n  "a": [1, 2],\n  "b": {},\n  "c": []\n}',
    );
    const long = formatJson(Array.from({ length: 20 }, (_, i) => i + 0.123456));
    expect(Math.max(...long.split('\n').map((line) => line.length))).toBeLessThanOrEqual(76);
    expect(JSON.parse(long)).toHaveLength(20);
  });

  it('cuts long lists unless all is wanted', () => {
    const embedding = { embedding: Array.from({ length: 384 }, () => 0.5) };
    expect(isCut(embedding)).toBe(true);
    expect(formatJson(embedding)).toContain('… 360 more');
    expect(JSON.parse(formatJson(embedding, Number.POSITIVE_INFINITY))).toEqual(embedding);
  });

  it('gives what can be read back', () => {
    const value = { text: 'a "b"\n', list: [{ x: null }, { y: [true, [1]] }], n: -1.5e-7 };
    expect(JSON.parse(formatJson(value))).toEqual(value);
  });
});
