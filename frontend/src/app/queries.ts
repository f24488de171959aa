import { QueryClient } from '@tanstack/react-query';
import { Problem } from '@/api/problem';

const TRIES = 2;

/** Settings of all requests for data. */
export function createQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: {
        // Our own probe tells whether the server can be reached; what the browser thinks of its
        // network says nothing about a server on this machine.
        networkMode: 'always',
        retry: (failures, error) => failures < TRIES && mayHelp(error),
        refetchOnWindowFocus: true,
        staleTime: 500,
      },
      mutations: { networkMode: 'always' },
    },
  });
}

/** Whether the same request may succeed a moment later. A lost connection is probed elsewhere. */
function mayHelp(error: unknown): boolean {
  return error instanceof Problem && error.status >= 500;
}
