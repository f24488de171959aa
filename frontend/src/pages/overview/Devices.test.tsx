import { render, screen } from '@testing-library/react';
import { describe, expect, it } from 'vitest';
import type { OverviewSample } from '@/api/overview';
import { Devices } from './Devices';

const QUEUE = { high: 0, normal: 0, low: 0, delayed: 0, running: 0, outbox: 0 };

function sample(memory: number | null): OverviewSample {
  const replica = {
    worker: 'gpu-worker-1:7:abc',
    host: 'gpu-worker-1',
    device: 'cuda:0',
    state: 'ready',
    capacity: 100,
    running: 8,
    completed: 64,
    busy: 0.25,
  };
  return {
    point: { at: 0, queue: QUEUE, rates: null, latency: null },
    status: 'healthy',
    uptime: 1,
    host: 'api-1',
    accepted: null,
    components: [],
    deployments: [
      {
        model: 'echo',
        version: 1,
        state: 'ready',
        reason: null,
        circuit: 'closed',
        queue: QUEUE,
        rates: null,
        batch_size: 8,
        batch_ms: 5,
        replicas: [replica],
      },
    ],
    devices: [
      {
        host: 'gpu-worker-1',
        device: 'cuda:0',
        replicas: 1,
        utilisation: memory === null ? null : 0.5,
        memory_used: memory,
      },
    ],
  };
}

describe('Devices', () => {
  it('shows how busy replicas on other machines are, and no column that is empty there', () => {
    render(<Devices sample={sample(null)} />);
    expect(screen.getByText('25 %')).toBeTruthy();
    expect(screen.queryByText('Memory')).toBeNull();
  });

  it('shows the memory of devices of its own machine', () => {
    render(<Devices sample={sample(2 ** 30)} />);
    expect(screen.getByText('Memory')).toBeTruthy();
    expect(screen.getByText('50 %')).toBeTruthy();
  });
});
