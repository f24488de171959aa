import { useEffect, useRef } from 'react';
import { NavLink, Outlet, useLocation, useNavigationType } from 'react-router';
import { useLostSince } from '@/api/connection';
import { Account } from './Account';
import { ErrorBoundary } from './ErrorBoundary';
import { ThemeSwitch } from './ThemeSwitch';

const PAGES = [
  ['/overview', 'Overview'],
  ['/playground', 'Playground'],
  ['/tasks', 'Tasks'],
  ['/models', 'Models'],
  ['/dead-letters', 'Dead letters'],
] as const;

/** What surrounds every page. */
export function Shell() {
  const { pathname } = useLocation();
  useTop();
  return (
    <>
      <a
        href="#main"
        className="absolute left-2 -top-12 z-20 rounded bg-accent px-3 py-2 text-on-accent focus:top-2"
      >
        Skip to content
      </a>
      <header className="sticky top-0 z-10 border-b border-line bg-panel">
        <div className="mx-auto flex max-w-[1440px] flex-wrap items-center gap-x-6 px-3 md:px-5">
          <span className="py-2 text-[15px] font-semibold">inferstack</span>
          <nav
            aria-label="Pages"
            className="order-last -mx-3 flex w-[calc(100%+1.5rem)] overflow-x-auto px-1 md:order-none md:m-0 md:w-auto md:flex-1 md:p-0"
          >
            {PAGES.map(([path, name]) => (
              <NavLink
                key={path}
                to={path}
                className="border-b-2 border-transparent px-2 py-2 whitespace-nowrap text-muted hover:text-ink aria-[current=page]:border-accent aria-[current=page]:text-ink md:px-3"
              >
                {name}
              </NavLink>
            ))}
          </nav>
          <div className="ml-auto flex items-center gap-3 py-1.5 md:ml-0">
            <a className="link hidden sm:inline" href="/api/docs">
              API docs
            </a>
            <ThemeSwitch />
            <Account />
          </div>
        </div>
        <LostConnection />
      </header>
      <main id="main" tabIndex={-1} className="mx-auto max-w-[1440px] p-3 outline-none md:p-5">
        {/* A page that failed is left behind with its address. */}
        <ErrorBoundary key={pathname}>
          <Outlet />
        </ErrorBoundary>
      </main>
    </>
  );
}

/**
 * Begins a new page at its top, and moves the focus into it: what had the focus may be gone. On the
 * way back the browser knows better, and an address with a hash names its own place.
 */
function useTop(): void {
  const { pathname, hash } = useLocation();
  const how = useNavigationType();
  const shown = useRef(pathname);
  useEffect(() => {
    if (shown.current === pathname) return;
    shown.current = pathname;
    if (how !== 'PUSH' || hash !== '') return;
    window.scrollTo(0, 0);
    document.getElementById('main')?.focus({ preventScroll: true });
  }, [pathname, hash, how]);
}

function LostConnection() {
  const since = useLostSince();
  return (
    <div role="status">
      {since !== null && (
        <p className="bg-warn-tint px-3 py-1.5 text-center font-medium text-warn">
          The connection to the server is lost. Trying again…
        </p>
      )}
    </div>
  );
}
