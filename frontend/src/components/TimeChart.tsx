import { type PointerEvent, useId, useMemo, useState } from 'react';
import {
  areaPath,
  type Frame,
  highest,
  type Line,
  linePath,
  minutes,
  nearest,
  roundUp,
  stacked,
  xOf,
  yOf,
} from './chart';
import { clock } from './format';
import { useWidth } from './useWidth';

const HEIGHT = 112;
/** Room for the scale at the left, and for the times below. */
const LEFT = 54;
const BELOW = 18;
const ABOVE = 8;

interface Props {
  label: string;
  /** Seconds since the epoch, rising. */
  times: number[];
  lines: Line[];
  /** The right edge, and how many seconds lie before it. */
  now: number;
  seconds: number;
  format: (value: number | null) => string;
  /** Whether the lines are parts of a whole. */
  stack?: boolean;
}

/** Lines over the last minutes. The legend shows the latest values, or those under the pointer. */
export function TimeChart({ label, times, lines, now, seconds, format, stack = false }: Props) {
  const [width, measure] = useWidth();
  const [pointed, setPointed] = useState<number | null>(null);
  const shown = useMemo(() => (stack ? stacked(lines) : lines), [stack, lines]);
  const frame: Frame = {
    width: Math.max(width - LEFT - 1, 1),
    height: HEIGHT,
    from: now - seconds,
    to: now,
    top: roundUp(highest(shown)),
  };
  const index = pointed ?? times.length - 1;
  const point = (event: PointerEvent<SVGSVGElement>) => {
    const x = event.clientX - event.currentTarget.getBoundingClientRect().left - LEFT;
    const found = nearest(times, x, frame);
    setPointed(found < 0 ? null : found);
  };
  return (
    <figure ref={measure}>
      <Legend
        lines={lines}
        index={index}
        format={format}
        {...(pointed === null ? {} : { at: times[index] })}
      />
      <svg
        role="img"
        aria-label={`${label}: ${lines.map((line) => `${line.name} ${format(line.values.at(-1) ?? null)}`).join(', ')}`}
        width={width}
        height={HEIGHT + BELOW + ABOVE}
        className="block touch-pan-y"
        onPointerMove={point}
        onPointerLeave={() => setPointed(null)}
      >
        <g transform={`translate(${LEFT} ${ABOVE})`}>
          <Axes frame={frame} format={format} />
          <Lines times={times} lines={shown} frame={frame} stack={stack} />
          {pointed !== null && <Cross time={times[index]} frame={frame} />}
        </g>
      </svg>
    </figure>
  );
}

function Lines({
  times,
  lines,
  frame,
  stack,
}: {
  times: number[];
  lines: Line[];
  frame: Frame;
  stack: boolean;
}) {
  const id = useId();
  return (
    <>
      <clipPath id={id}>
        <rect x="0" y={-ABOVE} width={frame.width} height={frame.height + ABOVE + 2} />
      </clipPath>
      <g clipPath={`url(#${id})`} strokeLinejoin="round" strokeLinecap="round">
        {[...lines].reverse().map((line) => (
          <g key={line.name}>
            {stack && (
              <path d={areaPath(times, line.values, frame)} fill={line.color} opacity="0.3" />
            )}
            <path
              d={linePath(times, line.values, frame)}
              fill="none"
              stroke={line.color}
              strokeWidth="1.5"
            />
          </g>
        ))}
      </g>
    </>
  );
}

function Axes({ frame, format }: { frame: Frame; format: Props['format'] }) {
  return (
    <g className="fill-muted text-[11px]">
      {[0, frame.top / 2, frame.top].map((value) => (
        <g key={value} transform={`translate(0 ${yOf(value, frame)})`}>
          <line x2={frame.width} stroke="var(--line)" />
          <text x="-6" dy="0.32em" textAnchor="end">
            {format(value)}
          </text>
        </g>
      ))}
      {minutes(frame).map((at) => {
        const x = xOf(at, frame);
        // A label at the very edge would be cut.
        if (x < 18 || x > frame.width - 18) return null;
        return (
          <text key={at} x={x} y={frame.height + 14} textAnchor="middle">
            {clock(new Date(at * 1000).toISOString()).slice(-8, -3)}
          </text>
        );
      })}
    </g>
  );
}

function Cross({ time, frame }: { time: number | undefined; frame: Frame }) {
  if (time === undefined) return null;
  const x = xOf(time, frame);
  return <line x1={x} x2={x} y1="0" y2={frame.height} stroke="var(--strong-line)" />;
}

interface LegendProps {
  lines: Line[];
  index: number;
  format: Props['format'];
  /** When the values were, if not now. */
  at?: number | undefined;
}

function Legend({ lines, index, format, at }: LegendProps) {
  return (
    <figcaption className="mb-1 flex flex-wrap gap-x-4 gap-y-0.5 text-xs">
      {lines.map((line) => (
        <span key={line.name} className="inline-flex items-center gap-1.5">
          <span aria-hidden="true" className="h-0.5 w-3" style={{ background: line.color }} />
          <span className="text-muted">{line.name}</span>
          <span className="font-medium">{format(line.values[index] ?? null)}</span>
        </span>
      ))}
      {at !== undefined && (
        <span className="ml-auto text-muted">{clock(new Date(at * 1000).toISOString())}</span>
      )}
    </figcaption>
  );
}
