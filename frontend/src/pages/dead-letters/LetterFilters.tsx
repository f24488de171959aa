import { useEffect, useState } from 'react';
import type { LetterFilter } from '@/api/deadLetters';
import { useModels } from '@/api/models';
import { Button } from '@/components/Button';
import { Field, SelectField } from '@/components/Fields';

interface Props {
  filter: LetterFilter;
  onChange: (name: 'model' | 'error', value: string) => void;
}

export function LetterFilters({ filter, onChange }: Props) {
  const models = useModels().data ?? [];
  const names = new Set([...models.map((model) => model.model), filter.model ?? '']);
  const options = [...names].filter(Boolean).map((name) => ({ value: name, text: name }));
  const inForce = filter.error ?? '';
  const [error, setError] = useState(inForce);
  // The address changes without the form, too. A key would take the focus from whoever types here.
  useEffect(() => setError(inForce), [inForce]);
  return (
    <search>
      <form
        className="flex flex-wrap items-end gap-3"
        onSubmit={(event) => {
          event.preventDefault();
          onChange('error', error.trim());
        }}
      >
        <SelectField
          label="Model"
          className="min-w-32 flex-1 sm:max-w-72 sm:flex-none"
          value={filter.model ?? ''}
          options={[{ value: '', text: 'Any model' }, ...options]}
          onChange={(value) => onChange('model', value)}
        />
        <Field label="Type of error" className="min-w-32 flex-1 sm:flex-none">
          {(id) => (
            <input
              id={id}
              className="control"
              placeholder="engine-error"
              value={error}
              onChange={(event) => setError(event.target.value)}
            />
          )}
        </Field>
        <Button type="submit">Filter</Button>
      </form>
    </search>
  );
}
