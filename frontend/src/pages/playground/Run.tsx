import { useEffect, useRef, useState } from 'react';
import { Link } from 'react-router';
import { isFinished, type Receipt, type Task, useCancel, usePosition, useTask } from '@/api/tasks';
import { Button } from '@/components/Button';
import { Json } from '@/components/Code';
import { Fact, Facts } from '@/components/Facts';
import { count, milliseconds, seconds, shortId } from '@/components/format';
import { Missing, ProblemNotice } from '@/components/Notice';
import { Panel } from '@/components/Panel';
import { State } from '@/components/State';
import { TaskError } from '../tasks/TaskError';
import { Timeline } from '../tasks/Timeline';

export interface Sent {
  receipt: Receipt;
  /** Seconds until it expires; null for never. */
  timeout: number | null;
  /** When it was sent, and how long until it was accepted; milliseconds by the browser's clock. */
  began: number;
  acceptedMs: number;
}

/** What becomes of a task that was just sent. */
export function Run({ sent }: { sent: Sent }) {
  const taskId = sent.receipt.task_id;
  const task = useTask(taskId);
  const cancel = useCancel();
  const finished = task.data !== undefined && isFinished(task.data.status);
  const total = useTotal(sent.began, finished);
  return (
    <Panel
      title="Result"
      aside={
        <span className="flex items-center gap-3">
          <Link className="link font-mono" to={`/tasks/${taskId}`}>
            {shortId(taskId)}
          </Link>
          <State of={task.data?.status ?? sent.receipt.status} />
          {!finished && (
            <Button
              small
              kind="danger"
              busy={cancel.isPending}
              onClick={() => cancel.mutate(taskId)}
            >
              Cancel
            </Button>
          )}
        </span>
      }
    >
      <div className="space-y-3">
        {cancel.error && <ProblemNotice error={cancel.error} />}
        {!finished && <Waiting sent={sent} state={task.data?.status} />}
        {task.error && <Missing query={task} what="the task" />}
        {task.data && finished && <Outcome task={task.data} />}
        <Facts>
          <Fact name="Accepted in">{milliseconds(sent.acceptedMs)}</Fact>
          <Fact name="Seen here after">{finished ? milliseconds(total) : '–'}</Fact>
          <Fact name="Queue position at first">{count(sent.receipt.queue_position)}</Fact>
        </Facts>
      </div>
    </Panel>
  );
}

function Outcome({ task }: { task: Task }) {
  return (
    <>
      <Timeline task={task} />
      {task.error && <TaskError error={task.error} />}
      {task.status === 'completed' && <Json value={task.result} what="the result" />}
    </>
  );
}

interface WaitingProps {
  sent: Sent;
  state: Task['status'] | undefined;
}

/** The place in the queue as it moves, until the task runs. */
function Waiting({ sent: { receipt, timeout }, state }: WaitingProps) {
  const query = usePosition(receipt.task_id, true);
  const running = state === 'running' || query.data?.status === 'running';
  const position = query.data ? query.data.queue_position : receipt.queue_position;
  const wait = query.data ? query.data.estimated_wait_time : receipt.estimated_wait_time;
  const late = timeout !== null && wait != null && wait > timeout;
  const first = Math.max(receipt.queue_position, position ?? 0, 1);
  return (
    <div className="rounded border border-line bg-sunken p-3">
      <p role="status" className="flex flex-wrap items-baseline gap-x-2">
        {running ? (
          <>
            <span className="text-base font-semibold">Running</span>
            <span className="text-muted">a replica computes it or takes it next</span>
          </>
        ) : position == null ? (
          <span className="text-base font-semibold">Waits for a retry</span>
        ) : (
          <>
            <span className="text-base font-semibold">
              Position <span data-testid="position">{count(position)}</span>
            </span>
            <span className="text-muted">starts in about {seconds(wait)}</span>
          </>
        )}
      </p>
      <div aria-hidden="true" className="mt-2 h-1.5 overflow-hidden rounded-full bg-idle-tint">
        <div
          className="h-full bg-accent"
          style={{ width: `${100 * (running || position == null ? 1 : 1 - position / first)}%` }}
        />
      </div>
      {!running && late && (
        <p className="mt-2 text-warn">
          That is longer than its timeout of {seconds(timeout)}: it may expire first.
        </p>
      )}
    </div>
  );
}

/** Milliseconds from sending until the end was seen here. */
function useTotal(began: number, finished: boolean): number {
  const [total, setTotal] = useState(0);
  const noted = useRef(false);
  useEffect(() => {
    if (!finished || noted.current) return;
    noted.current = true;
    setTotal(performance.now() - began);
  }, [began, finished]);
  return total;
}
