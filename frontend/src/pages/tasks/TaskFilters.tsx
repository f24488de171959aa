import { useModels } from '@/api/models';
import { PRIORITIES, STATES } from '@/api/tasks';
import { SelectField } from '@/components/Fields';
import { PERIODS } from './filter';

interface Props {
  params: URLSearchParams;
  onChange: (name: string, value: string) => void;
}

export function TaskFilters({ params, onChange }: Props) {
  const models = useModels().data ?? [];
  const names = [...new Set([...models.map((model) => model.model), params.get('model') ?? ''])];
  const select = (label: string, name: string, any: string, options: [string, string][]) => (
    <SelectField
      label={label}
      className="min-w-32 flex-1 sm:max-w-72 sm:flex-none"
      value={params.get(name) ?? ''}
      options={[['', any] as const, ...options].map(([value, text]) => ({ value, text }))}
      onChange={(value) => onChange(name, value)}
    />
  );
  const same = (words: readonly string[]) => words.map((word): [string, string] => [word, word]);
  const periods = Object.entries(PERIODS).map(([name, { text }]): [string, string] => [name, text]);
  return (
    <search className="flex flex-wrap gap-3">
      {select('State', 'status', 'Any state', same(STATES))}
      {select('Model', 'model', 'Any model', same(names.filter(Boolean)))}
      {select('Priority', 'priority', 'Any priority', same(PRIORITIES))}
      {select('Created', 'within', 'Any time', periods)}
    </search>
  );
}
