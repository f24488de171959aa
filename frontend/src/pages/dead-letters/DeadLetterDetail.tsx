import { useState } from 'react';
import { Link, useNavigate, useParams } from 'react-router';
import {
  type DeadLetterDetail as Letter,
  useDeadLetter,
  usePurge,
  useRedrive,
} from '@/api/deadLetters';
import { Button } from '@/components/Button';
import { Json } from '@/components/Code';
import { Confirm } from '@/components/Confirm';
import { CopyButton } from '@/components/Copy';
import { Fact, Facts } from '@/components/Facts';
import { bytes, count, milliseconds, seconds } from '@/components/format';
import { Missing, Outdated, ProblemNotice } from '@/components/Notice';
import { PageTitle, Panel } from '@/components/Panel';
import { Time } from '@/components/Time';
import { TaskError } from '../tasks/TaskError';
import { RedriveForm } from './RedriveForm';

/** One failed task with everything that may say why. */
export function DeadLetterDetail() {
  const { taskId = '' } = useParams();
  const letter = useDeadLetter(taskId);
  return (
    <div className="space-y-3">
      <p>
        <Link className="link" to="/dead-letters">
          Dead letters
        </Link>
      </p>
      {letter.data ? (
        <>
          <Outdated error={letter.error} />
          <Found letter={letter.data} />
        </>
      ) : (
        <>
          <PageTitle title="Dead letter" />
          <Missing query={letter} what="the dead letter" />
        </>
      )}
    </div>
  );
}

function Found({ letter }: { letter: Letter }) {
  const navigate = useNavigate();
  const [asked, setAsked] = useState(false);
  const redrive = useRedrive();
  const purge = usePurge();
  const taskId = letter.task_id;
  const error = redrive.error ?? purge.error;
  const remove = () =>
    purge.mutate([taskId], {
      onSuccess: () => void navigate('/dead-letters'),
      onError: () => setAsked(false),
    });
  return (
    <>
      <PageTitle
        title={`Dead letter ${taskId}`}
        actions={
          <Button kind="danger" onClick={() => setAsked(true)}>
            Purge…
          </Button>
        }
      >
        <CopyButton text={taskId} what="the task id" />
      </PageTitle>
      {error && <ProblemNotice error={error} />}
      {letter.error && (
        <TaskError error={{ ...letter.error, traceback: letter.traceback ?? null }} />
      )}
      <div className="grid items-start gap-3 lg:grid-cols-2">
        <Panel title="Redrive">
          <RedriveForm
            letter={letter}
            busy={redrive.isPending}
            onRedrive={(changes) =>
              redrive.mutate(
                { taskId, changes },
                { onSuccess: (task) => void navigate(`/tasks/${task.task_id}`) },
              )
            }
          />
        </Panel>
        <Panel title="Details">
          <Details letter={letter} />
        </Panel>
        <Panel
          title="Input"
          className="lg:col-span-2"
          aside={<span className="text-muted">{bytes(letter.input_bytes)}</span>}
        >
          {letter.input === null ? (
            <p className="text-muted">It was not kept, or is too large to show.</p>
          ) : (
            <Json value={letter.input} what="the input" />
          )}
        </Panel>
      </div>
      <Confirm
        open={asked}
        title="Purge this dead letter?"
        action="Purge"
        danger
        busy={purge.isPending}
        onClose={() => setAsked(false)}
        onConfirm={remove}
      >
        <p>The task and its input are removed for good.</p>
      </Confirm>
    </>
  );
}

function Details({ letter }: { letter: Letter }) {
  return (
    <Facts>
      <Fact name="Deployment">
        {letter.model}:{letter.model_version}
      </Fact>
      <Fact name="Priority">{letter.priority}</Fact>
      <Fact name="Created">
        <Time at={letter.created_at} />
      </Fact>
      <Fact name="Failed">
        <Time at={letter.failed_at} />
      </Fact>
      <Fact name="Attempts">{count(letter.attempts)}</Fact>
      <Fact name="Replicas lost">{count(letter.crashes)}</Fact>
      <Fact name="Batch size">{count(letter.batch_size)}</Fact>
      <Fact name="Compute">{milliseconds(letter.timings.compute_ms)}</Fact>
      <Fact name="Timeout">{letter.timeout == null ? 'never' : seconds(letter.timeout)}</Fact>
      {letter.tenant && <Fact name="Tenant">{letter.tenant}</Fact>}
      {letter.worker && (
        <Fact name="Latest replica">
          <span className="font-mono text-xs">{letter.worker}</span>
        </Fact>
      )}
      {letter.redrive_of && (
        <Fact name="Redrive of">
          <Link className="link font-mono text-xs" to={`/tasks/${letter.redrive_of}`}>
            {letter.redrive_of}
          </Link>
        </Fact>
      )}
      <Fact name="Task">
        <Link className="link" to={`/tasks/${letter.task_id}`}>
          Timeline
        </Link>
      </Fact>
    </Facts>
  );
}
