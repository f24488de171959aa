import { PRIORITIES, STATES, type TaskFilter } from '@/api/tasks';

/** How far back to look, by the name in the address. */
export const PERIODS: Record<string, { text: string; seconds: number }> = {
  '15m': { text: 'Last 15 minutes', seconds: 900 },
  '1h': { text: 'Last hour', seconds: 3600 },
  '24h': { text: 'Last 24 hours', seconds: 86_400 },
  '7d': { text: 'Last 7 days', seconds: 604_800 },
};

const FILTERS = ['status', 'model', 'priority', 'within'];

/** The filter that an address asks for; what it says wrong is left out. */
export function filterOf(params: URLSearchParams): TaskFilter {
  return {
    status: STATES.find((state) => state === params.get('status')),
    model: params.get('model') || undefined,
    priority: PRIORITIES.find((priority) => priority === params.get('priority')),
    within: PERIODS[params.get('within') ?? '']?.seconds,
    cursor: params.get('cursor') || undefined,
  };
}

export function hasFilter(params: URLSearchParams): boolean {
  return FILTERS.some((name) => params.get(name));
}
