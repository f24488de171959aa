import { describe, expect, it } from 'vitest';
import type { Task } from '@/api/tasks';
import { momentsOf, stepsOf } from './Timeline';

const task = (some: Partial<Task>) =>
  ({
    status: 'queued',
    attempts: 0,
    created_at: '2026-11-23T12:00:00Z',
    started_at: null,
    completed_at: null,
    timings: { queue_ms: null, batch_wait_ms: null, compute_ms: null },
    ...some,
  }) as Task;

const claimed = { attempts: 1, started_at: '2026-11-23T12:00:00.100Z' };

describe('momentsOf', () => {
  it('does not say of a task that was only claimed that it began', () => {
    const names = momentsOf(task({ ...claimed, status: 'running' })).map(({ name }) => name);
    expect(names).toEqual(['accepted', 'claimed']);
  });

  it('tells apart when a task was claimed and when its batch began', () => {
    const done = task({
      ...claimed,
      attempts: 2,
      status: 'completed',
      completed_at: '2026-11-23T12:00:00.500Z',
      timings: { queue_ms: 100, batch_wait_ms: 250, compute_ms: 150 },
    });
    expect(momentsOf(done)).toEqual([
      { name: 'accepted', at: done.created_at },
      { name: 'claimed (attempt 2)', at: done.started_at },
      { name: 'batch began', at: '2026-11-23T12:00:00.350Z' },
      { name: 'completed', at: done.completed_at },
    ]);
  });

  it('lets no batch begin after its end, whatever its other tasks waited', () => {
    const joined = task({
      ...claimed,
      status: 'completed',
      completed_at: '2026-11-23T12:00:00.160Z',
      processing_time: 0.06,
      timings: { queue_ms: 100, batch_wait_ms: 72, compute_ms: 10 },
    });
    const began = momentsOf(joined).find(({ name }) => name === 'batch began');
    expect(began?.at).toBe('2026-11-23T12:00:00.150Z');
    expect(stepsOf(joined).map(({ ms }) => ms)).toEqual([100, 50, 10]);
  });
});
