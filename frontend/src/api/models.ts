import { useQuery } from '@tanstack/react-query';
import { api, body, type Schemas } from './client';

export type Model = Schemas['Model'];

const EVERY = 2000;

/** `model:version`, as everywhere. */
export function deploymentOf({ model, version }: { model: string; version: number }): string {
  return `${model}:${version}`;
}

/** Every deployment with its state, its queue and its replicas. */
export function useModels() {
  return useQuery({
    queryKey: ['models'],
    queryFn: ({ signal }) => body(api.GET('/api/models', { signal })),
    select: ({ models }) => models,
    refetchInterval: EVERY,
  });
}
