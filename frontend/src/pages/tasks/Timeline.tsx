import { isFinished, type Task } from '@/api/tasks';
import { milliseconds } from '@/components/format';
import { Time } from '@/components/Time';

interface Step {
  name: string;
  color: string;
  ms: number;
}

/** Where the time of a task went: a bar, the numbers, and the moments. */
export function Timeline({ task }: { task: Task }) {
  const steps = stepsOf(task);
  const total = steps.reduce((sum, step) => sum + step.ms, 0);
  return (
    <div className="space-y-3">
      {total > 0 && (
        <>
          <div className="flex h-3 gap-px overflow-hidden rounded bg-sunken" aria-hidden="true">
            {steps.map((step) => (
              <span
                key={step.name}
                style={{ flexGrow: step.ms / total, minWidth: 2, background: step.color }}
              />
            ))}
          </div>
          <ul className="flex flex-wrap gap-x-5 gap-y-1">
            {steps.map((step) => (
              <li key={step.name} className="inline-flex items-center gap-1.5">
                <span
                  aria-hidden="true"
                  className="size-2 rounded-xs"
                  style={{ background: step.color }}
                />
                <span className="text-muted">{step.name}</span>
                <span className="font-medium">{milliseconds(step.ms)}</span>
              </li>
            ))}
            <li className="ml-auto">
              <span className="text-muted">total</span>{' '}
              <span className="font-medium">{milliseconds(total)}</span>
            </li>
          </ul>
        </>
      )}
      <ol className="space-y-1 border-l-2 border-line pl-3">
        {momentsOf(task).map(({ name, at }) => (
          <li key={name} className="flex gap-3">
            <span className="w-36 text-muted">{name}</span>
            <Time at={at} precise />
          </li>
        ))}
      </ol>
    </div>
  );
}

/** The parts of a task's life, in order. What the replica did not measure is the rest. */
export function stepsOf(task: Task): Step[] {
  const { queue_ms: queue, compute_ms: compute } = task.timings;
  const wait = waitOf(task);
  const processing = task.processing_time == null ? null : task.processing_time * 1000;
  const rest = processing === null ? 0 : processing - (wait ?? 0) - (compute ?? 0);
  const steps = [
    { name: 'queue', color: 'var(--chart-3)', ms: queue ?? 0 },
    { name: 'batch wait', color: 'var(--chart-5)', ms: wait ?? 0 },
    { name: 'compute', color: 'var(--chart-1)', ms: compute ?? 0 },
    { name: 'hand over', color: 'var(--chart-6)', ms: Math.max(0, rest) },
  ];
  return steps.filter((step) => step.ms > 0);
}

/** When it was where. A replica claims a task before its batch begins, which is known afterwards. */
export function momentsOf(task: Task): { name: string; at: string | null | undefined }[] {
  const again = task.attempts > 1 ? ` (attempt ${task.attempts})` : '';
  const wait = waitOf(task);
  const began = task.started_at && wait != null ? later(task.started_at, wait) : null;
  return [
    { name: 'accepted', at: task.created_at },
    ...(task.started_at ? [{ name: `claimed${again}`, at: task.started_at }] : []),
    ...(began ? [{ name: 'batch began', at: began }] : []),
    ...(isFinished(task.status) ? [{ name: task.status, at: task.completed_at }] : []),
  ];
}

/** How long it waited in its batch. What is measured is the batch's wait: it may have joined later. */
function waitOf({ timings, processing_time: processing }: Task): number | null {
  const { batch_wait_ms: wait, compute_ms: compute } = timings;
  if (wait == null || processing == null) return wait;
  return Math.max(0, Math.min(wait, processing * 1000 - (compute ?? 0)));
}

function later(iso: string, milliseconds: number): string {
  return new Date(Date.parse(iso) + milliseconds).toISOString();
}
