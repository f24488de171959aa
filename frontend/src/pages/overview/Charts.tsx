import { type OverviewPoint, type OverviewSample, WINDOW } from '@/api/overview';
import type { Line } from '@/components/chart';
import { count, milliseconds, rate } from '@/components/format';
import { Panel } from '@/components/Panel';
import { TimeChart } from '@/components/TimeChart';

/** Throughput, latency and queue depth over the last five minutes. */
export function Charts({ points, sample }: { points: OverviewPoint[]; sample: OverviewSample }) {
  const line = (
    name: string,
    color: string,
    of: (point: OverviewPoint) => number | null | undefined,
  ): Line => ({ name, color: `var(--chart-${color})`, values: points.map((p) => of(p) ?? null) });
  const common = { times: points.map(({ at }) => at), now: sample.point.at, seconds: WINDOW };
  return (
    <div className="grid gap-3 lg:grid-cols-3">
      <Panel title="Throughput" aside={<Note>tasks per second</Note>}>
        <TimeChart
          {...common}
          label="Tasks per second"
          format={rate}
          lines={[
            line('completed', '1', (point) => point.rates?.completed),
            line('failed', '2', (point) => point.rates?.failed),
            line('expired', '3', (point) => point.rates?.expired),
          ]}
        />
      </Panel>
      <Panel
        title="Latency"
        // Each API machine knows its own requests only, and the stream comes from any of them.
        aside={<Note>{`of requests that wait, over 30 s, at ${sample.host}`}</Note>}
      >
        <TimeChart
          {...common}
          label="Latency"
          format={milliseconds}
          lines={[
            line('p50', '1', (point) => point.latency?.p50),
            line('p95', '4', (point) => point.latency?.p95),
            line('p99', '5', (point) => point.latency?.p99),
          ]}
        />
      </Panel>
      <Panel title="Queue depth" aside={<Note>waiting tasks by priority</Note>}>
        <TimeChart
          {...common}
          label="Waiting tasks"
          format={count}
          stack
          lines={[
            line('high', '3', (point) => point.queue.high),
            line('normal', '4', (point) => point.queue.normal),
            line('low', '6', (point) => point.queue.low),
          ]}
        />
      </Panel>
    </div>
  );
}

function Note({ children }: { children: string }) {
  return <span className="text-xs text-muted">{children}</span>;
}
