import { Link } from 'react-router';
import { deploymentOf } from '@/api/models';
import type { OverviewSample } from '@/api/overview';
import { count, milliseconds, rate } from '@/components/format';
import { Empty } from '@/components/Notice';
import { Panel } from '@/components/Panel';
import { State } from '@/components/State';
import { DeploymentName, Table, Titles } from '@/components/Table';

type Deployment = OverviewSample['deployments'][number];

const TEXTS = ['Deployment', 'State', 'Circuit'];
const NUMBERS = [
  'High',
  'Normal',
  'Low',
  'Running',
  'Completed/s',
  'Failed/s',
  'Batch size',
  'Batch time',
  'Replicas',
];

export function Deployments({ deployments }: { deployments: Deployment[] }) {
  return (
    <Panel title="Deployments" flush>
      {deployments.length === 0 ? (
        <Empty title="No deployments">
          Put a model into MODEL_PATH and start inferstack again.
        </Empty>
      ) : (
        <Table label="Deployments" head={<Titles texts={TEXTS} numbers={NUMBERS} />}>
          <tbody>
            {deployments.map((deployment) => (
              <Row key={`${deployment.model}:${deployment.version}`} of={deployment} />
            ))}
          </tbody>
        </Table>
      )}
    </Panel>
  );
}

function Row({ of }: { of: Deployment }) {
  const { queue, rates } = of;
  const name = deploymentOf(of);
  return (
    <tr>
      <td className="name font-medium" title={name}>
        <Link className="link" to={`/models#${name}`} aria-label={name}>
          <DeploymentName model={of.model} version={of.version} />
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
      <td className="number">{milliseconds(of.batch_ms)}</td>
      <td className="number">{count(of.replicas.length)}</td>
    </tr>
  );
}
