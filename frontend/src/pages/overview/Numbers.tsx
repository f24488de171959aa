import type { ReactNode } from 'react';
import { type OverviewPoint, type OverviewSample, WINDOW } from '@/api/overview';
import { count, milliseconds, rate } from '@/components/format';
import { Sparkline } from '@/components/Sparkline';

interface Props {
  sample: OverviewSample;
  points: OverviewPoint[];
}

/** The few numbers to look at first. */
export function Numbers({ sample, points }: Props) {
  const { queue, rates, latency } = sample.point;
  const times = points.map((point) => point.at);
  const spark = (color: string, of: (point: OverviewPoint) => number | null) => (
    <Sparkline
      times={times}
      values={points.map(of)}
      color={color}
      now={sample.point.at}
      seconds={WINDOW}
    />
  );
  const replicas = sample.deployments.flatMap((deployment) => deployment.replicas);
  const ready = sample.deployments.filter((deployment) => deployment.state === 'ready').length;
  return (
    <dl className="grid grid-cols-2 gap-px overflow-hidden rounded border border-line bg-line md:grid-cols-3 xl:grid-cols-6">
      <Headline
        name="Completed"
        value={rate(rates?.completed)}
        unit="/s"
        more={spark('var(--chart-1)', (point) => point.rates?.completed ?? null)}
      />
      <Headline
        name="Failed and expired"
        value={rate(rates && rates.failed + rates.expired)}
        unit="/s"
        more={spark('var(--chart-2)', ({ rates: r }) => (r ? r.failed + r.expired : null))}
      />
      <Headline
        name="Latency p95"
        value={milliseconds(latency?.p95)}
        more={spark('var(--chart-4)', (point) => point.latency?.p95 ?? null)}
      />
      <Headline
        name="Waiting"
        value={count(waiting(sample.point))}
        more={spark('var(--chart-3)', waiting)}
      />
      <Headline
        name="Running"
        value={count(queue.running)}
        more={<Small>{`held by replicas; ${count(queue.delayed)} to retry`}</Small>}
      />
      <Headline
        name="Replicas"
        value={count(replicas.length)}
        more={<Small>{`${ready} of ${sample.deployments.length} deployments ready`}</Small>}
      />
    </dl>
  );
}

function waiting({ queue }: OverviewPoint): number {
  return queue.high + queue.normal + queue.low;
}

interface HeadlineProps {
  name: string;
  value: string;
  unit?: string;
  more: ReactNode;
}

function Headline({ name, value, unit, more }: HeadlineProps) {
  return (
    <div className="flex min-w-0 flex-col bg-panel px-3 py-2">
      <dt className="text-xs text-muted">{name}</dt>
      <dd className="flex flex-wrap items-center justify-between gap-x-2">
        <span className="text-xl leading-7 font-semibold whitespace-nowrap">
          {value}
          {unit && <span className="ml-0.5 text-xs font-normal text-muted">{unit}</span>}
        </span>
        {more}
      </dd>
    </div>
  );
}

function Small({ children }: { children: string }) {
  return <span className="text-xs text-muted">{children}</span>;
}
