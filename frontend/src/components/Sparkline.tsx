import { type Frame, linePath, roundUp } from './chart';

interface Props {
  /** Seconds, rising. */
  times: number[];
  values: (number | null)[];
  color: string;
  now: number;
  seconds: number;
}

const SIZE = { width: 96, height: 24 };

/** How a number moved, without a scale: the number itself stands beside it. */
export function Sparkline({ times, values, color, now, seconds }: Props) {
  const top = roundUp(Math.max(0, ...values.map((value) => value ?? 0)));
  const frame: Frame = { ...SIZE, from: now - seconds, to: now, top };
  return (
    <svg
      aria-hidden="true"
      viewBox={`0 -2 ${SIZE.width} ${SIZE.height + 4}`}
      className="h-7 w-24"
      preserveAspectRatio="none"
    >
      <path
        d={linePath(times, values, frame)}
        fill="none"
        stroke={color}
        strokeWidth="1.5"
        strokeLinecap="round"
      />
    </svg>
  );
}
