import { render, screen } from '@testing-library/react';
import { MemoryRouter } from 'react-router';
import { describe, expect, it } from 'vitest';
import type { OverviewSample } from '@/api/overview';
import { Deployments } from './Deployments';

const QUEUE = { high: 0, normal: 0, low: 0, delayed: 0, running: 0, outbox: 0 };

const deployment = (version: number, circuit: string): OverviewSample['deployments'][number] => ({
  model: 'echo',
  version,
  state: 'ready',
  reason: null,
  circuit,
  queue: QUEUE,
  rates: null,
  batch_size: null,
  batch_ms: null,
  replicas: [],
});

describe('Deployments', () => {
  it('shows the circuit of each, and by its colour whether somebody has to look', () => {
    const circuits = ['closed', 'half-open', 'open'];
    render(
      <MemoryRouter>
        <Deployments deployments={circuits.map((circuit, i) => deployment(i + 1, circuit))} />
      </MemoryRouter>,
    );
    const column = screen
      .getAllByRole('columnheader')
      .findIndex((e) => e.textContent === 'Circuit');
    const cells = screen
      .getAllByRole('row')
      .slice(1)
      .map((row) => row.children[column]);
    expect(cells.map((cell) => cell?.textContent)).toEqual(circuits);
    const tones = cells.map((cell) => cell?.querySelector('[class*="text-"]')?.className);
    expect(tones[0]).toContain('text-good');
    expect(tones[1]).toContain('text-warn');
    expect(tones[2]).toContain('text-bad');
  });
});
