/** The geometry of charts over time. */

export interface Line {
  name: string;
  /** A CSS colour. */
  color: string;
  /** One for each time; null where nothing is known. */
  values: (number | null)[];
}

export interface Frame {
  width: number;
  height: number;
  /** The times at both edges, in seconds. */
  from: number;
  to: number;
  /** The value at the upper edge; zero is at the lower one. */
  top: number;
}

/** Seconds without a sample after which a line is broken rather than drawn across. */
const GAP = 3.5;

/** The next round number, so that the scale keeps still while values move a little. */
export function roundUp(value: number): number {
  if (!(value > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  const steps = [1, 2, 2.5, 5, 10];
  return (steps.find((step) => step * unit >= value * 0.9999) ?? 10) * unit;
}

/** The highest value of all lines, or of their sum. */
export function highest(lines: Line[]): number {
  return Math.max(0, ...lines.flatMap((line) => line.values.map((value) => value ?? 0)));
}

/** Each line on top of the ones before it. */
export function stacked(lines: Line[]): Line[] {
  let below: number[] = [];
  return lines.map((line) => {
    const sums = line.values.map((value, i) => (value ?? 0) + (below[i] ?? 0));
    below = sums;
    return {
      ...line,
      values: line.values.map((value, i) => (value === null ? null : (sums[i] ?? 0))),
    };
  });
}

export function xOf(time: number, frame: Frame): number {
  return ((time - frame.from) / (frame.to - frame.from)) * frame.width;
}

export function yOf(value: number, frame: Frame): number {
  return frame.height * (1 - value / frame.top);
}

type Point = [x: number, y: number];

/** The unbroken parts of a line. */
function parts(times: number[], values: (number | null)[], frame: Frame): Point[][] {
  const found: Point[][] = [];
  let last: number | null = null;
  for (const [i, time] of times.entries()) {
    const value = values[i] ?? null;
    if (value === null) {
      last = null;
      continue;
    }
    if (last === null || time - last > GAP) found.push([]);
    found.at(-1)?.push([xOf(time, frame), yOf(value, frame)]);
    last = time;
  }
  return found;
}

/** The path of a line. */
export function linePath(times: number[], values: (number | null)[], frame: Frame): string {
  return parts(times, values, frame).map(draw).join('');
}

/** The path of the area between a line and the axis. */
export function areaPath(times: number[], values: (number | null)[], frame: Frame): string {
  return parts(times, values, frame)
    .map((part) => {
      const [first, last] = [part[0], part.at(-1)];
      if (!first || !last) return '';
      return `${draw(part)}L${round(last[0])} ${frame.height}L${round(first[0])} ${frame.height}Z`;
    })
    .join('');
}

function draw(part: Point[]): string {
  const [first] = part;
  // A single point is drawn as a dot: a line of no length with round ends.
  if (part.length === 1 && first) return `M${round(first[0])} ${round(first[1])}h0.01`;
  return part.map(([x, y], i) => `${i === 0 ? 'M' : 'L'}${round(x)} ${round(y)}`).join('');
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

/** The index of the time that is nearest to a place; -1 if there is none. */
export function nearest(times: number[], x: number, frame: Frame): number {
  let [best, distance] = [-1, Number.POSITIVE_INFINITY];
  for (const [i, time] of times.entries()) {
    const away = Math.abs(xOf(time, frame) - x);
    if (away < distance) [best, distance] = [i, away];
  }
  return best;
}

/** The whole minutes inside a frame. */
export function minutes(frame: Frame): number[] {
  const found: number[] = [];
  for (let at = Math.ceil(frame.from / 60) * 60; at <= frame.to; at += 60) found.push(at);
  return found;
}
