import type { FormEvent } from 'react';
import { deploymentOf, type Model } from '@/api/models';
import { PRIORITIES } from '@/api/tasks';
import { Button } from '@/components/Button';
import { Field, type Option, Segments, SelectField } from '@/components/Fields';
import { formatJson } from '@/components/json';
import { ProblemNotice } from '@/components/Notice';
import { type Draft, timeoutOf } from './draft';
import { exampleOf } from './example';
import { InputField } from './InputField';

interface Props {
  models: Model[];
  draft: Draft;
  change: (some: Partial<Draft>) => void;
  /** Whether there is something to send. */
  ready: boolean;
  busy: boolean;
  error: unknown;
  onSend: () => void;
}

export function RequestForm({ models, draft, change, ready, busy, error, onSend }: Props) {
  const chosen = models.find((model) => [model.model, deploymentOf(model)].includes(draft.model));
  const limit = timeoutOf(draft.timeout);
  const send = () => {
    if (ready && !busy) onSend();
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    send();
  };
  return (
    <form className="space-y-3" onSubmit={submit}>
      <div className="flex flex-wrap gap-3">
        <SelectField
          label="Model"
          className="min-w-40 flex-1"
          value={draft.model}
          options={modelOptions(models, draft.model)}
          onChange={(model) => change({ model })}
        />
        <Segments
          label="Priority"
          value={draft.priority}
          options={PRIORITIES.map((priority) => ({ value: priority, text: priority }))}
          onChange={(priority) => change({ priority })}
        />
        <Field label="Timeout (s)" className="w-24">
          {(id) => (
            <input
              id={id}
              className="control"
              inputMode="decimal"
              placeholder="never"
              value={draft.timeout}
              aria-invalid={'wrong' in limit}
              onChange={(event) => change({ timeout: event.target.value })}
            />
          )}
        </Field>
      </div>
      {'wrong' in limit && <p className="text-xs text-bad">{limit.wrong}</p>}
      <InputField
        text={draft.text}
        onChange={(text) => change({ text })}
        onExample={() => change({ text: formatJson(exampleOf(chosen)) })}
        onSend={send}
      />
      {error !== null && <ProblemNotice error={error} />}
      <div className="flex items-center gap-3">
        <Button type="submit" kind="primary" busy={busy} disabled={!ready}>
          Send
        </Button>
        <span className="text-xs text-muted">
          <kbd>Ctrl</kbd>+<kbd>Enter</kbd> in the input does the same
        </span>
      </div>
    </form>
  );
}

function modelOptions(models: Model[], current: string): Option[] {
  const names = [...new Set(models.map((model) => model.model))];
  const options = names.flatMap((name) => {
    const versions = models.filter((model) => model.model === name);
    const ready = versions.some((model) => model.state === 'ready');
    return [
      { value: name, text: `${name} (${ready ? 'newest that is ready' : 'none is ready'})` },
      ...versions.map((model) => ({
        value: deploymentOf(model),
        text: `${deploymentOf(model)}${model.state === 'ready' ? '' : ` (${model.state})`}`,
      })),
    ];
  });
  // A model that is gone stays chosen, so that nobody sends to another one unawares.
  const known = current === '' || options.some((option) => option.value === current);
  return known ? options : [{ value: current, text: `${current} (not there)` }, ...options];
}
