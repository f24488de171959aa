import { type FormEvent, useState } from 'react';
import type { Changes, DeadLetterDetail } from '@/api/deadLetters';
import { deploymentOf, useModels } from '@/api/models';
import { PRIORITIES, type Priority } from '@/api/tasks';
import { Button } from '@/components/Button';
import { Segments, SelectField } from '@/components/Fields';

interface Props {
  letter: DeadLetterDetail;
  busy: boolean;
  onRedrive: (changes: Changes) => void;
}

/** What shall be other than the first time; unchanged if nothing is chosen. */
export function RedriveForm({ letter, busy, onRedrive }: Props) {
  const models = useModels().data ?? [];
  const [version, setVersion] = useState(String(letter.model_version));
  const [priority, setPriority] = useState<Priority>(letter.priority);
  const versions = models.filter((model) => model.model === letter.model);
  const known = versions.some((model) => model.version === letter.model_version);
  const options = [
    ...(known
      ? []
      : [
          {
            value: String(letter.model_version),
            text: `${deploymentOf({ model: letter.model, version: letter.model_version })} (gone)`,
          },
        ]),
    ...versions.map((model) => ({
      value: String(model.version),
      text: `${deploymentOf(model)}${model.state === 'ready' ? '' : ` (${model.state})`}`,
    })),
  ];
  const send = (event: FormEvent) => {
    event.preventDefault();
    onRedrive({
      ...(Number(version) === letter.model_version ? {} : { model_version: Number(version) }),
      ...(priority === letter.priority ? {} : { priority }),
    });
  };
  return (
    <form className="space-y-3" onSubmit={send}>
      <p className="text-muted">Submits a new task with the same input.</p>
      <div className="flex flex-wrap gap-3">
        <SelectField label="Version" value={version} options={options} onChange={setVersion} />
        <Segments
          label="Priority"
          value={priority}
          options={PRIORITIES.map((word) => ({ value: word, text: word }))}
          onChange={setPriority}
        />
      </div>
      <Button type="submit" kind="primary" busy={busy}>
        Redrive
      </Button>
    </form>
  );
}
