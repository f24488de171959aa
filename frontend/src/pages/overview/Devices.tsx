import type { OverviewSample } from '@/api/overview';
import { bytes, count, rate } from '@/components/format';
import { Meter } from '@/components/Meter';
import { Empty } from '@/components/Notice';
import { Panel } from '@/components/Panel';
import { Scroll } from '@/components/Scroll';
import { State } from '@/components/State';

type Device = OverviewSample['devices'][number];
type Replica = OverviewSample['deployments'][number]['replicas'][number];

interface Running extends Replica {
  deployment: string;
}

/** What computes: each device, and the replicas on it. */
export function Devices({ sample }: { sample: OverviewSample }) {
  const replicas = sample.deployments.flatMap((of) =>
    of.replicas.map((replica) => ({ ...replica, deployment: `${of.model}:${of.version}` })),
  );
  return (
    <Panel title="Devices and replicas" flush>
      {sample.devices.length === 0 ? (
        <Empty title="No replicas">Models that start, or failed to, are on the Models page.</Empty>
      ) : (
        <Scroll label="Devices and replicas">
          <table className="table">
            <thead>
              <tr>
                <th>Device, replicas</th>
                <th>State</th>
                <th>Utilisation</th>
                <th className="number">Memory</th>
                <th className="number">Running</th>
                <th className="number">Capacity</th>
                <th className="number">Completed</th>
              </tr>
            </thead>
            {sample.devices.map((device) => (
              <DeviceRows
                key={`${device.host} ${device.device}`}
                device={device}
                replicas={replicas.filter(
                  (replica) => replica.host === device.host && replica.device === device.device,
                )}
              />
            ))}
          </table>
        </Scroll>
      )}
    </Panel>
  );
}

function DeviceRows({ device, replicas }: { device: Device; replicas: Running[] }) {
  const name = `${device.device} on ${device.host}`;
  return (
    <tbody>
      <tr>
        <td className="font-medium">{name}</td>
        <td />
        <td>
          <Meter share={device.utilisation} />
        </td>
        <td className="number">{bytes(device.memory_used)}</td>
        <td className="number">{count(replicas.reduce((sum, r) => sum + r.running, 0))}</td>
        <td className="number">{`${rate(replicas.reduce((sum, r) => sum + r.capacity, 0))}/s`}</td>
        <td className="number">{count(replicas.reduce((sum, r) => sum + r.completed, 0))}</td>
      </tr>
      {replicas.map((replica) => (
        <tr key={replica.worker} className="text-muted">
          <td className="pl-8!" title={replica.worker}>
            {replica.deployment} · process {replica.worker.split(':')[1]}
          </td>
          <td>
            <State of={replica.state} />
          </td>
          <td />
          <td />
          <td className="number">{count(replica.running)}</td>
          <td className="number">{`${rate(replica.capacity)}/s`}</td>
          <td className="number">{count(replica.completed)}</td>
        </tr>
      ))}
    </tbody>
  );
}
