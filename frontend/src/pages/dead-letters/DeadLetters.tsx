import { useState } from 'react';
import {
  type DeadLetter,
  type LetterFilter,
  MOST_REDRIVEN,
  useDeadLetters,
  usePurge,
  useRedriveMany,
} from '@/api/deadLetters';
import { Button } from '@/components/Button';
import { Confirm } from '@/components/Confirm';
import { count, counted } from '@/components/format';
import { Empty, Missing, Outdated, ProblemNotice } from '@/components/Notice';
import { Pager } from '@/components/Pager';
import { PageTitle, Panel } from '@/components/Panel';
import { useQueryParams } from '@/components/useQueryParams';
import { Answers } from './Answers';
import { LetterFilters } from './LetterFilters';
import { LetterTable } from './LetterTable';

/** Failed tasks: look into them, submit them again, or remove them. */
export function DeadLetters() {
  const [params, change] = useQueryParams();
  const filter = {
    model: params.get('model') || undefined,
    error: params.get('error') || undefined,
  };
  const cursor = params.get('cursor') || undefined;
  const letters = useDeadLetters(filter, cursor);
  const page = letters.data;
  return (
    <div className="space-y-3">
      <PageTitle title="Dead letters" />
      <p className="text-muted">
        Tasks that failed for good. A redrive submits a new task with the same input; the old one
        stays in the history.
      </p>
      <LetterFilters
        filter={filter}
        onChange={(name, value) => change({ [name]: value, cursor: '' })}
      />
      {page && <Outdated error={letters.error} />}
      {page ? (
        <Letters
          letters={page.dead_letters}
          filter={filter}
          stale={letters.isPlaceholderData}
          pager={
            <Pager
              label="Pages of dead letters"
              cursor={cursor}
              next={page.next_cursor}
              stale={letters.isPlaceholderData}
              onGo={(cursor) => change({ cursor })}
            />
          }
        />
      ) : (
        <Missing query={letters} what="dead letters" />
      )}
    </div>
  );
}

interface LettersProps {
  letters: DeadLetter[];
  filter: LetterFilter;
  stale: boolean;
  pager: React.ReactNode;
}

function Letters({ letters, filter, stale, pager }: LettersProps) {
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [asked, setAsked] = useState<'all' | 'purge' | null>(null);
  const redrive = useRedriveMany();
  const purge = usePurge();
  const filtered = Boolean(filter.model || filter.error);
  // What has left the list meanwhile is not chosen any more.
  const selected = letters.map((letter) => letter.task_id).filter((id) => chosen.has(id));
  const done = () => {
    setChosen(new Set());
    setAsked(null);
  };
  const error = redrive.error ?? purge.error;
  return (
    <>
      {error && <ProblemNotice error={error} />}
      {redrive.data && <Answers answers={redrive.data} />}
      <Panel
        title={selected.length > 0 ? `${count(selected.length)} selected` : 'Latest failures'}
        flush
        aside={
          <div className="flex flex-wrap gap-2">
            <Button
              small
              kind="primary"
              disabled={selected.length === 0}
              busy={redrive.isPending}
              onClick={() => redrive.mutate({ task_ids: selected }, { onSuccess: done })}
            >
              Redrive selected
            </Button>
            {filtered && (
              <Button small disabled={letters.length === 0} onClick={() => setAsked('all')}>
                Redrive all that match…
              </Button>
            )}
            <Button
              small
              kind="danger"
              disabled={selected.length === 0}
              onClick={() => setAsked('purge')}
            >
              Purge selected…
            </Button>
            {pager}
          </div>
        }
      >
        {letters.length > 0 ? (
          <LetterTable letters={letters} chosen={chosen} onChoose={setChosen} stale={stale} />
        ) : (
          <Empty title="No dead letters">
            {filtered ? 'None matches these filters.' : 'No task has failed for good.'}
          </Empty>
        )}
      </Panel>
      <Confirm
        open={asked === 'all'}
        title="Redrive all that match?"
        action="Redrive"
        busy={redrive.isPending}
        onClose={() => setAsked(null)}
        onConfirm={() =>
          redrive.mutate({ ...wanted(filter), limit: MOST_REDRIVEN }, { onSettled: done })
        }
      >
        <p>
          Up to {MOST_REDRIVEN} tasks that match the filters, those that failed first, are submitted
          again.
        </p>
      </Confirm>
      <Confirm
        open={asked === 'purge'}
        title={`Purge ${counted(selected.length, 'dead letter')}?`}
        action="Purge"
        danger
        busy={purge.isPending}
        onClose={() => setAsked(null)}
        onConfirm={() => purge.mutate(selected, { onSettled: done })}
      >
        <p>Inputs included. This cannot be undone.</p>
      </Confirm>
    </>
  );
}

function wanted({ model, error }: LetterFilter) {
  return { ...(model ? { model } : {}), ...(error ? { error } : {}) };
}
