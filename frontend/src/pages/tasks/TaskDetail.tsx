import { Link, useNavigate, useParams } from 'react-router';
import {
  isFinished,
  type Task,
  type TaskState,
  useCancel,
  useRetry,
  useTask,
  useTaskRequest,
} from '@/api/tasks';
import { Button, buttonClass } from '@/components/Button';
import { Json } from '@/components/Code';
import { CopyButton } from '@/components/Copy';
import { Fact, Facts } from '@/components/Facts';
import { count, milliseconds, seconds } from '@/components/format';
import { Missing, Outdated, ProblemNotice } from '@/components/Notice';
import { PageTitle, Panel } from '@/components/Panel';
import { State } from '@/components/State';
import { TaskError } from './TaskError';
import { Timeline } from './Timeline';

/** Why there is no result. A task counts as running from the moment that a replica holds it. */
const WITHOUT_RESULT: Record<Exclude<TaskState, 'completed'>, string> = {
  queued: 'Not yet: it waits for a replica, or for its next attempt.',
  running: 'Not yet: a replica holds it, and computes it or takes it next.',
  failed: 'It has failed: there is none.',
  cancelled: 'It was cancelled: there is none.',
  expired: 'It has expired: there is none.',
};

/** One task: what it is, where its time went, what came of it. */
export function TaskDetail() {
  const { taskId = '' } = useParams();
  const task = useTask(taskId);
  return (
    <div className="space-y-3">
      <p>
        <Link className="link" to="/tasks">
          Tasks
        </Link>
      </p>
      {task.data ? (
        <>
          <Head task={task.data} />
          <Outdated error={task.error} />
          <Body task={task.data} />
        </>
      ) : (
        <>
          <PageTitle title="Task" />
          <Missing query={task} what="the task" />
        </>
      )}
    </div>
  );
}

function Head({ task }: { task: Task }) {
  const navigate = useNavigate();
  const cancel = useCancel();
  const retry = useRetry();
  const again = async () => {
    const receipt = await retry.mutateAsync(task.task_id).catch(() => null);
    if (receipt) void navigate(`/tasks/${receipt.task_id}`);
  };
  const error = cancel.error ?? retry.error;
  return (
    <>
      <PageTitle
        title={`Task ${task.task_id}`}
        actions={
          <>
            {!isFinished(task.status) && (
              <Button
                kind="danger"
                busy={cancel.isPending}
                onClick={() => cancel.mutate(task.task_id)}
              >
                Cancel
              </Button>
            )}
            <Button
              busy={retry.isPending}
              onClick={() => void again()}
              title="Submits a new task with the same input"
            >
              Retry as a new task
            </Button>
            <Link className={buttonClass()} to={`/playground?task=${task.task_id}`}>
              Open in Playground
            </Link>
          </>
        }
      >
        <CopyButton text={task.task_id} what="the task id" />
        <State of={task.status} />
      </PageTitle>
      {error && <ProblemNotice error={error} />}
    </>
  );
}

function Body({ task }: { task: Task }) {
  return (
    <>
      {task.error && <TaskError error={task.error} />}
      <div className="grid items-start gap-3 lg:grid-cols-2">
        <Panel title="Timeline">
          <Timeline task={task} />
        </Panel>
        <Panel title="Details">
          <Details task={task} />
        </Panel>
        <Input taskId={task.task_id} />
        <Panel title="Result">
          {task.status === 'completed' ? (
            <Json value={task.result} what="the result" />
          ) : (
            <p className="text-muted">{WITHOUT_RESULT[task.status]}</p>
          )}
        </Panel>
      </div>
    </>
  );
}

function Details({ task }: { task: Task }) {
  return (
    <Facts>
      <Fact name="Deployment">
        <Link className="link" to={`/models#${task.model}:${task.model_version}`}>
          {task.model}:{task.model_version}
        </Link>
      </Fact>
      <Fact name="Priority">{task.priority}</Fact>
      <Fact name="Attempts">{count(task.attempts)}</Fact>
      <Fact name="Batch size">{count(task.batch_size)}</Fact>
      <Fact name="Cost">{count(task.cost)}</Fact>
      <Fact name="Queue">{milliseconds(task.timings.queue_ms)}</Fact>
      <Fact name="Processing">{seconds(task.processing_time)}</Fact>
      {task.redrive_of && (
        <Fact name="Redrive of">
          <Link className="link font-mono text-xs" to={`/tasks/${task.redrive_of}`}>
            {task.redrive_of}
          </Link>
        </Fact>
      )}
      {task.metadata && (
        <Fact name="Metadata">
          <code className="text-xs">{JSON.stringify(task.metadata)}</code>
        </Fact>
      )}
    </Facts>
  );
}

function Input({ taskId }: { taskId: string }) {
  const request = useTaskRequest(taskId);
  return (
    <Panel title="Input">
      {request.data ? (
        <Json value={request.data.data} what="the input" />
      ) : (
        <Missing query={request} what="the input" />
      )}
    </Panel>
  );
}
