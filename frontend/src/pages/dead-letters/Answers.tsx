import { Link } from 'react-router';
import { type Redrive, type Refusal, wasRefused } from '@/api/deadLetters';
import { count, shortId } from '@/components/format';

/** What a redrive came to: the new tasks, and what was refused. */
export function Answers({ answers }: { answers: (Redrive | Refusal)[] }) {
  const refused = answers.filter(wasRefused);
  const accepted = answers.filter((answer): answer is Redrive => !wasRefused(answer));
  return (
    <div role="status" className="space-y-2 rounded border border-line bg-panel p-3">
      <p className="font-semibold">
        {count(accepted.length)} redriven
        {refused.length > 0 && `, ${count(refused.length)} refused`}
      </p>
      {accepted.length > 0 && (
        <p className="flex max-h-24 flex-wrap gap-x-3 overflow-y-auto font-mono text-xs">
          {accepted.map((answer) => (
            <Link key={answer.task_id} className="link" to={`/tasks/${answer.task_id}`}>
              {shortId(answer.task_id)}
            </Link>
          ))}
        </p>
      )}
      {refused.map((answer) => (
        <p key={answer.task_id} className="break-words text-bad">
          <span className="font-mono text-xs">{shortId(answer.task_id ?? '')}</span> {answer.title}:{' '}
          {answer.detail}
        </p>
      ))}
    </div>
  );
}
