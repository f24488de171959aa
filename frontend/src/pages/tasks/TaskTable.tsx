import { Link } from 'react-router';
import { isFinished, type Task, useCancel } from '@/api/tasks';
import { Button } from '@/components/Button';
import { count, milliseconds, seconds, shortId } from '@/components/format';
import { ProblemNotice } from '@/components/Notice';
import { PriorityMark, State } from '@/components/State';
import { DeploymentName, Table, Titles } from '@/components/Table';
import { Time } from '@/components/Time';

const TEXTS = ['State', 'Task', 'Deployment', 'Priority', 'Created'];
const NUMBERS = ['Queue', 'Compute', 'Processing', 'Batch size', 'Attempts'];

interface Props {
  tasks: Task[];
  /** Whether this is still the page before, while the next one loads. */
  stale: boolean;
}

export function TaskTable({ tasks, stale }: Props) {
  const cancel = useCancel();
  return (
    <>
      {cancel.error && <ProblemNotice error={cancel.error} />}
      <Table
        label="Tasks"
        stale={stale}
        head={
          <>
            <Titles texts={TEXTS} numbers={NUMBERS} />
            <th>
              <span className="sr-only">Actions</span>
            </th>
          </>
        }
      >
        <tbody>
          {tasks.map((task) => (
            <Row
              key={task.task_id}
              task={task}
              busy={cancel.isPending && cancel.variables === task.task_id}
              onCancel={() => cancel.mutate(task.task_id)}
            />
          ))}
        </tbody>
      </Table>
    </>
  );
}

function Row({ task, busy, onCancel }: { task: Task; busy: boolean; onCancel: () => void }) {
  const id = shortId(task.task_id);
  const deployment = `${task.model}:${task.model_version}`;
  return (
    <tr>
      <td>
        <State of={task.status} />
      </td>
      <td className="font-mono text-xs">
        <Link className="link" to={`/tasks/${task.task_id}`} title={task.task_id}>
          {id}
        </Link>
      </td>
      <td className="name" title={deployment}>
        <DeploymentName model={task.model} version={task.model_version} />
      </td>
      <td>
        <PriorityMark of={task.priority} />
      </td>
      <td>
        <Time at={task.created_at} />
      </td>
      <td className="number">{milliseconds(task.timings.queue_ms)}</td>
      <td className="number">{milliseconds(task.timings.compute_ms)}</td>
      <td className="number">{seconds(task.processing_time)}</td>
      <td className="number">{count(task.batch_size)}</td>
      <td className="number">{count(task.attempts)}</td>
      <td className="w-0 py-1!">
        {!isFinished(task.status) && (
          <Button small busy={busy} onClick={onCancel} aria-label={`Cancel task ${id}`}>
            Cancel
          </Button>
        )}
      </td>
    </tr>
  );
}
