import { type Overview as Found, useOverview, WINDOW } from '@/api/overview';
import { age } from '@/components/format';
import { Loading, Outdated, ProblemNotice } from '@/components/Notice';
import { PageTitle } from '@/components/Panel';
import { State } from '@/components/State';
import { Charts } from './Charts';
import { Components } from './Components';
import { Deployments } from './Deployments';
import { Devices } from './Devices';
import { Numbers } from './Numbers';

/** Samples of the charts' window, one a second, that may be missing unmentioned. */
const GAPS = 15;

/** How the system is now, and was in the last five minutes. */
export function Overview() {
  const overview = useOverview();
  return (
    <div className="space-y-3">
      <PageTitle title="Overview">
        <Status overview={overview} />
      </PageTitle>
      <Body overview={overview} />
    </div>
  );
}

function Body({ overview }: { overview: Found }) {
  const { sample, points } = overview;
  if (sample === null) {
    return overview.error ? (
      <ProblemNotice error={overview.error} />
    ) : (
      <Loading what="the overview" />
    );
  }
  return (
    <>
      <Outdated error={overview.error} />
      <div className={`space-y-3 ${overview.live ? '' : 'opacity-60'}`}>
        <Numbers sample={sample} points={points} />
        <Charts points={points} sample={sample} />
        {points.length < WINDOW - GAPS && (
          <p className="text-xs text-muted">
            The charts record only while somebody has this page open.
          </p>
        )}
        <Deployments deployments={sample.deployments} />
        <div className="grid items-start gap-3 lg:grid-cols-[2fr_1fr]">
          <Devices sample={sample} />
          <Components components={sample.components} />
        </div>
      </div>
    </>
  );
}

function Status({ overview: { sample, live } }: { overview: Found }) {
  if (sample === null) return null;
  return (
    <>
      <State of={sample.status} />
      <span className="text-xs text-muted">
        {live ? `live · API up ${age(sample.uptime)}` : 'not live'}
      </span>
    </>
  );
}
