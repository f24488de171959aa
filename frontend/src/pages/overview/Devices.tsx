import type { OverviewSample } from '@/api/overview';
import { bytes, count, rate } from '@/components/format';
import { Meter } from '@/components/Meter';
import { Empty } from '@/components/Notice';
import { Panel } from '@/components/Panel';
import { State } from '@/components/State';
import { Table, Titles } from '@/components/Table';

type Device = OverviewSample['devices'][number];
type Replica = OverviewSample['deployments'][number]['replicas'][number];

const TEXTS = ['Device, replicas', 'State', 'Utilisation'];
const NUMBERS = ['Running', 'Capacity', 'Completed'];

interface Running extends Replica {
  deployment: string;
}

/** What computes: each device, and the replicas on it. */
export function Devices({ sample }: { sample: OverviewSample }) {
  const replicas = sample.deployments.flatMap((of) =>
    of.replicas.map((replica) => ({ ...replica, deployment: `${of.model}:${of.version}` })),
  );
  // The API sees the devices of its own machine only; of replicas elsewhere it hears how busy they are.
  const memory = sample.devices.some((device) => device.memory_used !== null);
  const numbers = memory ? ['Memory', ...NUMBERS] : NUMBERS;
  return (
    <Panel title="Devices and replicas" flush>
      {sample.devices.length === 0 ? (
        <Empty title="No replicas">Models that start, or failed to, are on the Models page.</Empty>
      ) : (
        <Table label="Devices and replicas" head={<Titles texts={TEXTS} numbers={numbers} />}>
          {sample.devices.map((device) => (
            <DeviceRows
              key={`${device.host} ${device.device}`}
              device={device}
              memory={memory}
              replicas={replicas.filter(
                (replica) => replica.host === device.host && replica.device === device.device,
              )}
            />
          ))}
        </Table>
      )}
    </Panel>
  );
}

interface Rows {
  device: Device;
  memory: boolean;
  replicas: Running[];
}

function DeviceRows({ device, memory, replicas }: Rows) {
  const name = `${device.device} on ${device.host}`;
  return (
    <tbody>
      <tr>
        <td className="name font-medium" title={name}>
          {name}
        </td>
        <td />
        <td>
          <Meter share={device.utilisation} />
        </td>
        {memory && <td className="number">{bytes(device.memory_used)}</td>}
        <td className="number">{count(replicas.reduce((sum, r) => sum + r.running, 0))}</td>
        <td className="number">{`${rate(replicas.reduce((sum, r) => sum + r.capacity, 0))}/s`}</td>
        <td className="number">{count(replicas.reduce((sum, r) => sum + r.completed, 0))}</td>
      </tr>
      {replicas.map((replica) => (
        <tr key={replica.worker} className="text-muted">
          <td className="name pl-8!" title={`${replica.deployment} · ${replica.worker}`}>
            {replica.deployment} · process {replica.worker.split(':')[1]}
          </td>
          <td>
            <State of={replica.state} />
          </td>
          <td>
            <Meter share={replica.busy} />
          </td>
          {memory && <td />}
          <td className="number">{count(replica.running)}</td>
          <td className="number">{`${rate(replica.capacity)}/s`}</td>
          <td className="number">{count(replica.completed)}</td>
        </tr>
      ))}
    </tbody>
  );
}
