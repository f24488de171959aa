import { keepPreviousData, useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { api, body, exactBody, type Schemas } from './client';
import { stringifyExact } from './exact';
import { withKey } from './repeats';

export type Task = Schemas['TaskView'];
export type TaskState = Task['status'];
export type Priority = Task['priority'];
export type Submission = Schemas['Submission'];
export type Request = Schemas['RequestView'];
export type Receipt = Schemas['ReceiptView'];

export const STATES: TaskState[] = [
  'queued',
  'running',
  'completed',
  'failed',
  'cancelled',
  'expired',
];
export const PRIORITIES: Priority[] = ['high', 'normal', 'low'];

export interface TaskFilter {
  status?: TaskState | undefined;
  model?: string | undefined;
  priority?: Priority | undefined;
  /** Seconds back from now. */
  within?: number | undefined;
  cursor?: string | undefined;
}

/** Seconds that a request waits at the server for a task to finish. */
const WAIT = 20;
const AT_ONCE = 50;
const POSITION_EVERY = 400;
const AFTER_ERROR = 2000;
const LIST_EVERY = 3000;
export const PAGE_SIZE = 50;

export function isFinished(state: TaskState): boolean {
  return state !== 'queued' && state !== 'running';
}

/** A page of history, newest first. Without a cursor it follows what happens. */
export function useTasks(filter: TaskFilter) {
  return useQuery({
    queryKey: ['tasks', 'list', filter],
    queryFn: ({ signal }) => {
      const { within, ...rest } = filter;
      const since = within === undefined ? undefined : String(Date.now() / 1000 - within);
      const query = defined({ ...rest, since, limit: PAGE_SIZE });
      return body(api.GET('/api/inference', { params: { query }, signal }));
    },
    placeholderData: keepPreviousData,
    refetchInterval: filter.cursor ? false : LIST_EVERY,
  });
}

/** A task, followed until it has finished: each request waits at the server for the end. */
export function useTask(taskId: string) {
  return useQuery({
    queryKey: ['tasks', taskId],
    queryFn: async ({ signal, client, queryKey }) => {
      const known = client.getQueryData<Task>(queryKey);
      // The first answer comes at once, so that there is something to show.
      const wait = known === undefined || isFinished(known.status) ? 0 : WAIT;
      const params = { path: { task_id: taskId }, query: { wait } };
      const request = { params, signal, parseAs: 'text' } as const;
      return exactBody<Task>(api.GET('/api/inference/{task_id}', request));
    },
    refetchInterval: ({ state }) => pace(state, AT_ONCE),
  });
}

/** Where a task stands in its queue, a few times a second while it waits. */
export function usePosition(taskId: string, enabled: boolean) {
  return useQuery({
    queryKey: ['tasks', taskId, 'position'],
    queryFn: ({ signal }) => {
      const params = { path: { task_id: taskId } };
      return body(api.GET('/api/inference/{task_id}/position', { params, signal }));
    },
    enabled,
    gcTime: 0,
    refetchInterval: ({ state }) => pace(state, POSITION_EVERY),
  });
}

interface Followed {
  data: { status: TaskState } | undefined;
  error: unknown;
}

/** Milliseconds until the next look at a task; false once it has finished. */
function pace({ data, error }: Followed, usual: number): number | false {
  if (error) return AFTER_ERROR;
  return data && isFinished(data.status) ? false : usual;
}

/** What a task was asked for, its input included. */
export function useTaskRequest(taskId: string, enabled = true) {
  return useQuery({
    queryKey: ['tasks', taskId, 'request'],
    queryFn: () => readRequest(taskId),
    enabled,
    staleTime: Number.POSITIVE_INFINITY,
  });
}

function readRequest(taskId: string) {
  const request = { params: { path: { task_id: taskId } }, parseAs: 'text' } as const;
  return exactBody<Request>(api.GET('/api/inference/{task_id}/request', request));
}

/** Submits a task; after a failure, the same again finds the task that it may have made. */
export function submit(submission: Submission): Promise<Receipt> {
  return submitText(stringifyExact(submission));
}

function submitText(text: string, retryOf = ''): Promise<Receipt> {
  return withKey(`${retryOf} ${text}`, (key) => {
    const request = {
      params: { header: { 'Idempotency-Key': key } },
      body: text as unknown as Submission,
      bodySerializer: String,
    };
    // It asks for no wait, so the answer is a receipt.
    return body(api.POST('/api/inference', request)) as Promise<Receipt>;
  });
}

export function useCancel() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (taskId: string) => {
      const params = { path: { task_id: taskId } };
      return body(api.DELETE('/api/inference/{task_id}', { params }));
    },
    onSuccess: (task) => {
      client.setQueryData(['tasks', task.task_id], task);
      return client.invalidateQueries({ queryKey: ['tasks', 'list'] });
    },
  });
}

/** Submits a new task that asks for the same as an old one. */
export function useRetry() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: async (taskId: string) => {
      const params = { path: { task_id: taskId } };
      // Sent as it came: JavaScript would write 1.0 as 1.
      const request = { params, parseAs: 'text' } as const;
      const text = await body(api.GET('/api/inference/{task_id}/request', request));
      return submitText(text as unknown as string, taskId);
    },
    onSuccess: () => client.invalidateQueries({ queryKey: ['tasks', 'list'] }),
  });
}

/** Without the entries that are not set: a query must not carry `status=undefined`. */
export function defined<T extends object>(values: T): { [K in keyof T]: NonNullable<T[K]> } {
  const entries = Object.entries(values).filter(([, value]) => value != null && value !== '');
  return Object.fromEntries(entries) as { [K in keyof T]: NonNullable<T[K]> };
}
