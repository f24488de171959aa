import type { OverviewSample } from '@/api/overview';
import { milliseconds } from '@/components/format';
import { Panel } from '@/components/Panel';
import { State } from '@/components/State';

type Component = OverviewSample['components'][number];

const NAMES: Record<string, string> = {
  queue: 'Queue (Redis)',
  database: 'History (PostgreSQL)',
  objects: 'Object store',
};

/** The services that the API stands on. */
export function Components({ components }: { components: Component[] }) {
  return (
    <Panel title="Components" flush>
      <ul>
        {components.map((component) => (
          <li
            key={component.name}
            className="flex flex-wrap items-center justify-between gap-x-3 border-b border-line px-3 py-1.5 last:border-b-0"
          >
            <span>{NAMES[component.name] ?? component.name}</span>
            <span className="flex items-center gap-3">
              <span className="text-muted">{milliseconds(component.latency_ms)}</span>
              <State of={component.ok ? 'ok' : 'down'} />
            </span>
            {component.detail && (
              <p className="w-full text-xs break-words text-bad">
                {component.detail}
                {component.essential ? '' : '. Inference goes on without it.'}
              </p>
            )}
          </li>
        ))}
      </ul>
    </Panel>
  );
}
