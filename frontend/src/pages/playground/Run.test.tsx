import { QueryClientProvider } from '@tanstack/react-query';
import { render, screen } from '@testing-library/react';
import { MemoryRouter } from 'react-router';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Task } from '@/api/tasks';
import { createQueryClient } from '@/app/queries';
import { Run } from './Run';

const receipt = {
  task_id: '01975a3c-7f2e-7c41-9d0b-3f6e5a1b2c3d',
  status: 'queued',
  queue_position: 12,
  estimated_wait_time: 3,
} as const;

const task = (some: Partial<Task>): Task => ({
  task_id: receipt.task_id,
  status: 'queued',
  result: null,
  error: null,
  model: 'echo',
  model_version: 1,
  priority: 'normal',
  attempts: 0,
  created_at: '2026-11-23T12:00:00Z',
  started_at: null,
  completed_at: null,
  processing_time: null,
  timings: { queue_ms: null, batch_wait_ms: null, compute_ms: null },
  batch_size: null,
  cost: 1,
  metadata: null,
  redrive_of: null,
  ...some,
});

const done = task({
  status: 'completed',
  result: { answer: 42 },
  started_at: '2026-11-23T12:00:00.1Z',
  completed_at: '2026-11-23T12:00:00.12Z',
  processing_time: 0.02,
  timings: { queue_ms: 100, batch_wait_ms: 1, compute_ms: 17.5 },
});

/** A server whose task moves through the queue with each look. */
function serve(places: (number | null)[]) {
  let place: number | null | undefined;
  vi.stubGlobal('fetch', async (request: Request) => {
    const url = new URL(request.url);
    if (url.pathname.endsWith('/position')) {
      place = places.shift() ?? null;
      const status = place === null ? 'completed' : 'queued';
      return Response.json({ status, queue_position: place, estimated_wait_time: place });
    }
    if (url.searchParams.get('wait') === '0') return Response.json(task({}));
    await vi.waitUntil(() => place === null, { timeout: 5000 });
    return Response.json(done);
  });
}

afterEach(() => vi.unstubAllGlobals());

describe('Run', () => {
  it('shows the place in the queue as it moves, then the result and its timings', async () => {
    serve([9, 4]);
    const sent = { receipt, began: performance.now(), acceptedMs: 3 };
    render(
      <QueryClientProvider client={createQueryClient()}>
        <MemoryRouter>
          <Run sent={sent} />
        </MemoryRouter>
      </QueryClientProvider>,
    );
    expect(screen.getByTestId('position').textContent).toBe('12');
    await vi.waitUntil(() => screen.queryByTestId('position')?.textContent === '9');
    await vi.waitUntil(() => screen.queryByTestId('position')?.textContent === '4');
    expect(await screen.findByText(/"answer": 42/, {}, { timeout: 5000 })).toBeTruthy();
    expect(screen.getByText('100 ms')).toBeTruthy();
    expect(screen.getByText('18 ms')).toBeTruthy();
    expect(screen.queryByRole('button', { name: 'Cancel' })).toBeNull();
  });
});
