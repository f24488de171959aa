import { Link } from 'react-router';
import { deploymentOf, type Model } from '@/api/models';
import { buttonClass } from '@/components/Button';
import { Json } from '@/components/Code';
import { Fact, Facts } from '@/components/Facts';
import { count, rate } from '@/components/format';
import { Panel } from '@/components/Panel';
import { State } from '@/components/State';
import { Table, Titles } from '@/components/Table';

/** One version of a model. */
export function Deployment({ of }: { of: Model }) {
  const name = deploymentOf(of);
  return (
    <div id={name}>
      <Panel
        title={
          <span className="inline-flex flex-wrap items-center gap-2">
            {name} <State of={of.state} />
            {of.default && <span className="text-xs text-muted">default</span>}
            {of.circuit !== 'closed' && <State of={of.circuit}>{`circuit ${of.circuit}`}</State>}
          </span>
        }
        aside={
          <span className="flex gap-2">
            <Link
              className={buttonClass('plain', true)}
              to={`/tasks?model=${of.model}`}
              aria-label={`Tasks of ${of.model}`}
            >
              Tasks
            </Link>
            <Link
              className={buttonClass('plain', true)}
              to={`/playground?model=${name}`}
              aria-label={`Try it: ${name}`}
            >
              Try it
            </Link>
          </span>
        }
        flush
      >
        <div className="space-y-3 p-3">
          {of.reason && <p className="break-words text-bad">{of.reason}</p>}
          <Facts>
            <Fact name="Engine">{of.engine}</Fact>
            <Fact name="Purpose">{of.task ?? '–'}</Fact>
            <Fact name="Batch size, at most">{count(of.batch_size)}</Fact>
            <Fact name="Running">{count(of.running)}</Fact>
            <Fact name="Waiting, high">{count(of.waiting.high ?? 0)}</Fact>
            <Fact name="Waiting, normal">{count(of.waiting.normal ?? 0)}</Fact>
            <Fact name="Waiting, low">{count(of.waiting.low ?? 0)}</Fact>
            <Fact name="Replicas">{count(of.replicas.length)}</Fact>
          </Facts>
          {of.input_schema && (
            <details>
              <summary className="link w-fit">Input schema</summary>
              <div className="mt-2">
                <Json value={of.input_schema} what={`the input schema of ${name}`} />
              </div>
            </details>
          )}
        </div>
        {of.replicas.length > 0 && (
          <div className="border-t border-line">
            <Replicas of={of} />
          </div>
        )}
      </Panel>
    </div>
  );
}

function Replicas({ of }: { of: Model }) {
  const numbers = ['Running', 'Capacity', 'Batches', 'Completed'];
  return (
    <Table
      label={`Replicas of ${deploymentOf(of)}`}
      head={<Titles texts={['Replica', 'State', 'Device']} numbers={numbers} />}
    >
      <tbody>
        {of.replicas.map((replica) => (
          <tr key={replica.worker}>
            <td className="font-mono text-xs">{replica.worker}</td>
            <td>
              <State of={replica.state} />
            </td>
            <td>{replica.device}</td>
            <td className="number">{count(replica.running)}</td>
            <td className="number">{`${rate(replica.capacity)}/s`}</td>
            <td className="number">{count(replica.batches)}</td>
            <td className="number">{count(replica.completed)}</td>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}
