import type { Task } from '@/api/tasks';
import { Code } from '@/components/Code';

/** Why a task failed; with the engine's traceback for those who may see it. */
export function TaskError({ error }: { error: NonNullable<Task['error']> }) {
  return (
    <div className="space-y-2 rounded border border-bad bg-bad-tint p-3">
      <p className="break-words text-bad">
        <span className="font-semibold">{error.type}</span>: {error.message}
      </p>
      {error.traceback && <Code text={error.traceback} what="the traceback" />}
    </div>
  );
}
