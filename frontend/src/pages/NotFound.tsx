import { Link, useLocation } from 'react-router';
import { PageTitle } from '@/components/Panel';

export function NotFound() {
  const { pathname } = useLocation();
  return (
    <>
      <PageTitle title="There is no such page" />
      <p className="mt-3">
        Nothing is at <code className="break-words">{pathname}</code>.
      </p>
      <p className="mt-1">
        <Link className="link" to="/overview">
          Go to the overview
        </Link>
      </p>
    </>
  );
}
