import type { Model } from './models';

/** A deployment that serves, for tests. */
export function sampleModel(some: Partial<Model> = {}): Model {
  return {
    model: 'echo',
    version: 1,
    default: false,
    state: 'ready',
    reason: null,
    circuit: 'closed',
    engine: 'python',
    task: null,
    input_schema: null,
    batch_size: 32,
    waiting: {},
    running: 0,
    replicas: [],
    ...some,
  };
}
