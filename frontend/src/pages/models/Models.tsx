import { useEffect } from 'react';
import { useLocation } from 'react-router';
import { deploymentOf, useModels } from '@/api/models';
import { Empty, Missing, Outdated } from '@/components/Notice';
import { PageTitle, Panel } from '@/components/Panel';
import { Deployment } from './Deployment';

/** Every deployment: its state, its queue and its replicas. */
export function Models() {
  const models = useModels();
  useAnchor(models.data !== undefined);
  return (
    <div className="space-y-3">
      <PageTitle title="Models" />
      {models.data ? (
        <Outdated error={models.error} />
      ) : (
        <Missing query={models} what="the models" />
      )}
      {models.data?.length === 0 && (
        <Panel title="Deployments">
          <Empty title="No models">
            Put one into MODEL_PATH as <code>name/version/config.yaml</code> and start again.
          </Empty>
        </Panel>
      )}
      {models.data?.map((model) => (
        <Deployment key={deploymentOf(model)} of={model} />
      ))}
    </div>
  );
}

/** Goes to the deployment that the address names, once it is there. */
function useAnchor(ready: boolean): void {
  const { hash } = useLocation();
  useEffect(() => {
    if (!ready || hash === '') return;
    document.getElementById(nameIn(hash))?.scrollIntoView();
  }, [ready, hash]);
}

/** The deployment that a hash names; empty if it is malformed. */
function nameIn(hash: string): string {
  try {
    return decodeURIComponent(hash.slice(1));
  } catch {
    return '';
  }
}
