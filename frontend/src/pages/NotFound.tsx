import { Link, useLocation } from 'react-router';
import { Empty } from '@/components/Notice';

export function NotFound() {
  const { pathname } = useLocation();
  return (
    <Empty title="There is no such page">
      Nothing is at <code>{pathname}</code>.{' '}
      <Link className="link" to="/overview">
        Go to the overview
      </Link>
    </Empty>
  );
}
