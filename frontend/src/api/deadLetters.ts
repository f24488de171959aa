import { keepPreviousData, useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { api, body, exactBody, type Schemas } from './client';
import { Problem } from './problem';
import { defined } from './tasks';

export type DeadLetter = Schemas['DeadLetterView'];
export type DeadLetterDetail = Schemas['DeadLetterDetailView'];
export type Changes = Schemas['Changes'];
export type Redrive = Schemas['RedriveView'];
export type Refusal = Schemas['ProblemView'];

export interface LetterFilter {
  model?: string | undefined;
  error?: string | undefined;
}

const KEY = ['dead-letters'];
const EVERY = 3000;
export const MOST_REDRIVEN = 100;

export function useDeadLetters(filter: LetterFilter, cursor: string | undefined) {
  return useQuery({
    queryKey: [...KEY, 'list', filter, cursor],
    queryFn: ({ signal }) => {
      const query = defined({ ...filter, cursor });
      return body(api.GET('/api/dead-letters', { params: { query }, signal }));
    },
    placeholderData: keepPreviousData,
    refetchInterval: cursor ? false : EVERY,
  });
}

export function useDeadLetter(taskId: string) {
  return useQuery({
    queryKey: [...KEY, taskId],
    queryFn: ({ signal }) => {
      const params = { path: { task_id: taskId } };
      const request = { params, signal, parseAs: 'text' } as const;
      return exactBody<DeadLetterDetail>(api.GET('/api/dead-letters/{task_id}', request));
    },
    // Whoever comes back to one that was redriven must not find it as it was.
    gcTime: 0,
  });
}

/** Submits a failed task again as a new one. */
export function useRedrive() {
  const refresh = useRefresh();
  return useMutation({
    mutationFn: ({ taskId, changes }: { taskId: string; changes: Changes }) => {
      const params = { path: { task_id: taskId } };
      return body(api.POST('/api/dead-letters/{task_id}/redrive', { params, body: changes }));
    },
    onSuccess: refresh,
  });
}

/** Redrives what is named, or what matches a filter; each gets a receipt or a refusal. */
export function useRedriveMany() {
  const refresh = useRefresh();
  return useMutation({
    mutationFn: (wanted: Schemas['RedriveMany']) =>
      body(api.POST('/api/dead-letters/redrive', { body: wanted })),
    onSuccess: refresh,
  });
}

/** Removes failed tasks and their inputs for good. */
export function usePurge() {
  const refresh = useRefresh();
  return useMutation({
    mutationFn: async (taskIds: string[]) => {
      for (const taskId of taskIds) {
        const params = { path: { task_id: taskId } };
        await api.DELETE('/api/dead-letters/{task_id}', { params }).catch(unlessGone);
      }
    },
    onSettled: refresh,
  });
}

/** Somebody else was faster: what was asked for is done. */
function unlessGone(error: unknown) {
  const gone =
    error instanceof Problem && ['not-a-dead-letter', 'task-not-found'].includes(error.slug);
  if (!gone) throw error;
}

export function wasRefused(answer: Redrive | Refusal): answer is Refusal {
  return !('redrive_of' in answer);
}

function useRefresh() {
  const client = useQueryClient();
  return () => {
    // Lists out of sight are dropped: shown again, they would offer what is not there any more.
    client.removeQueries({ queryKey: [...KEY, 'list'], type: 'inactive' });
    return client.invalidateQueries({ queryKey: [...KEY, 'list'] });
  };
}
