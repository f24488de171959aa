import { useState } from 'react';
import { useSearchParams } from 'react-router';
import { type Model, useModels } from '@/api/models';
import { submit, useTaskRequest } from '@/api/tasks';
import { Empty, Missing } from '@/components/Notice';
import { PageTitle, Panel } from '@/components/Panel';
import { type Draft, startingDraft, submissionOf, useDraft } from './draft';
import { RequestForm } from './RequestForm';
import { Run, type Sent } from './Run';
import { Snippets } from './Snippets';

/** Sends one request and shows what becomes of it. `?task=` starts from that task's request. */
export function Playground() {
  const [params] = useSearchParams();
  const [model, taskId] = [params.get('model'), params.get('task')];
  const models = useModels();
  const request = useTaskRequest(taskId ?? '', taskId !== null);
  return (
    <div className="space-y-3">
      <PageTitle title="Playground" />
      {!models.data ? (
        <Missing query={models} what="the models" />
      ) : taskId !== null && !request.data ? (
        <Missing query={request} what="the request" />
      ) : (
        <Bench
          key={params.toString()}
          models={models.data}
          start={startingDraft({ model, request: request.data, models: models.data })}
        />
      )}
    </div>
  );
}

function Bench({ models, start }: { models: Model[]; start: Draft }) {
  const [draft, change] = useDraft(start);
  const [sent, setSent] = useState<Sent | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const submission = submissionOf(draft);

  const send = async () => {
    if (!submission) return;
    setBusy(true);
    setError(null);
    const began = performance.now();
    try {
      const receipt = await submit(submission);
      setSent({ receipt, began, acceptedMs: performance.now() - began });
    } catch (failure) {
      setError(failure);
    } finally {
      setBusy(false);
    }
  };

  return (
    // On a phone the result comes before the snippets; beside each other there is room for both.
    <div className="grid items-start gap-3 lg:grid-cols-2 lg:grid-rows-[auto_1fr]">
      <Panel title="Request">
        <RequestForm
          models={models}
          draft={draft}
          change={change}
          ready={submission !== null}
          busy={busy}
          error={error}
          onSend={() => void send()}
        />
      </Panel>
      <div className="min-w-0 lg:row-span-2">
        {sent ? (
          <Run key={sent.receipt.task_id} sent={sent} />
        ) : (
          <Panel title="Result">
            <Empty title="Nothing sent yet">The result and its timings appear here.</Empty>
          </Panel>
        )}
      </div>
      {submission && <Snippets submission={submission} />}
    </div>
  );
}
