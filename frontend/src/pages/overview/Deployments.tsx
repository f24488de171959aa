import { Link } from 'react-router';
import type { OverviewSample } from '@/api/overview';
import { count, milliseconds, rate } from '@/components/format';
import { Empty } from '@/components/Notice';
import { Panel } from '@/components/Panel';
import { Scroll } from '@/components/Scroll';
import { State } from '@/components/State';

type Deployment = OverviewSample['deployments'][number];

export function Deployments({ deployments }: { deployments: Deployment[] }) {
  return (
    <Panel title="Deployments" flush>
      {deployments.length === 0 ? (
        <Empty title="No deployments">
          Put a model into MODEL_PATH and start inferstack again.
        </Empty>
      ) : (
        <Scroll label="Deployments">
          <table className="table">
            <thead>
              <tr>
                <th>Deployment</th>
                <th>State</th>
                <th>Circuit</th>
                <th className="number">High</th>
                <th className="number">Normal</th>
                <th className="number">Low</th>
                <th className="number">Running</th>
                <th className="number">Completed/s</th>
                <th className="number">Failed/s</th>
                <th className="number">Batch</th>
                <th className="number">Compute p50</th>
                <th className="number">p95</th>
                <th className="number">Replicas</th>
              </tr>
            </thead>
            <tbody>
              {deployments.map((deployment) => (
                <Row key={`${deployment.model}:${deployment.version}`} of={deployment} />
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </Panel>
  );
}

function Row({ of }: { of: Deployment }) {
  const { queue, rates } = of;
  return (
    <tr>
      <td className="font-medium">
        <Link className="link" to={`/models#${of.model}:${of.version}`}>
          {of.model}:{of.version}
        </Link>
      </td>
      <td>
        <State of={of.state} />
      </td>
      <td>
        <State of={of.circuit} />
      </td>
      <td className="number">{count(queue.high)}</td>
      <td className="number">{count(queue.normal)}</td>
      <td className="number">{count(queue.low)}</td>
      <td className="number">{count(queue.running)}</td>
      <td className="number">{rate(rates?.completed)}</td>
      <td className="number">{rate(rates?.failed)}</td>
      <td className="number">{of.batch_size?.toFixed(1) ?? '–'}</td>
      <td className="number">{milliseconds(of.compute?.p50)}</td>
      <td className="number">{milliseconds(of.compute?.p95)}</td>
      <td className="number">{count(of.replicas.length)}</td>
    </tr>
  );
}
