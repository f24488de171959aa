import { Link } from 'react-router';
import type { DeadLetter } from '@/api/deadLetters';
import { count, shortId } from '@/components/format';
import { DeploymentName, Table, Titles } from '@/components/Table';
import { Time } from '@/components/Time';

interface Props {
  letters: DeadLetter[];
  chosen: ReadonlySet<string>;
  onChoose: (chosen: ReadonlySet<string>) => void;
  stale: boolean;
}

export function LetterTable({ letters, chosen, onChoose, stale }: Props) {
  const all = letters.every((letter) => chosen.has(letter.task_id));
  // Whose they are is told to administrators, who see those of all tenants.
  const tenants = letters.some((letter) => letter.tenant);
  const toggle = (taskId: string) => {
    const next = new Set(chosen);
    if (!next.delete(taskId)) next.add(taskId);
    onChoose(next);
  };
  return (
    <Table
      label="Dead letters"
      stale={stale}
      head={
        <>
          <th className="w-0">
            <input
              type="checkbox"
              aria-label="Select all on this page"
              checked={all}
              onChange={() => onChoose(new Set(all ? [] : letters.map((l) => l.task_id)))}
            />
          </th>
          <Titles
            texts={['Task', 'Deployment', ...(tenants ? ['Tenant'] : []), 'Error', 'Failed']}
            numbers={['Attempts', 'Replicas lost']}
          />
        </>
      }
    >
      <tbody>
        {letters.map((letter) => (
          <Row
            key={letter.task_id}
            letter={letter}
            tenants={tenants}
            chosen={chosen.has(letter.task_id)}
            onToggle={() => toggle(letter.task_id)}
          />
        ))}
      </tbody>
    </Table>
  );
}

interface RowProps {
  letter: DeadLetter;
  tenants: boolean;
  chosen: boolean;
  onToggle: () => void;
}

function Row({ letter, tenants, chosen, onToggle }: RowProps) {
  const id = shortId(letter.task_id);
  const deployment = `${letter.model}:${letter.model_version}`;
  return (
    <tr>
      <td>
        <input type="checkbox" aria-label={`Select ${id}`} checked={chosen} onChange={onToggle} />
      </td>
      <td className="font-mono text-xs">
        <Link className="link" to={`/dead-letters/${letter.task_id}`} title={letter.task_id}>
          {id}
        </Link>
      </td>
      <td className="name" title={deployment}>
        <DeploymentName model={letter.model} version={letter.model_version} />
      </td>
      {tenants && (
        <td className="name" title={letter.tenant ?? ''}>
          {letter.tenant}
        </td>
      )}
      <td className="max-w-96 truncate" title={letter.error?.message}>
        {letter.error ? (
          <>
            <span className="font-medium text-bad">{letter.error.type}</span> {letter.error.message}
          </>
        ) : (
          '–'
        )}
      </td>
      <td>
        <Time at={letter.failed_at} />
      </td>
      <td className="number">{count(letter.attempts)}</td>
      <td className="number">{count(letter.crashes)}</td>
    </tr>
  );
}
