import { render, screen } from '@testing-library/react';
import { MemoryRouter } from 'react-router';
import { describe, expect, it } from 'vitest';
import type { Model } from '@/api/models';
import { Deployment } from './Deployment';

const model = (circuit: string): Model => ({
  model: 'echo',
  version: 1,
  default: false,
  state: 'ready',
  reason: null,
  circuit,
  engine: 'python',
  task: null,
  input_schema: null,
  batch_size: 32,
  waiting: {},
  running: 0,
  replicas: [],
});

const show = (circuit: string) =>
  render(
    <MemoryRouter>
      <Deployment of={model(circuit)} />
    </MemoryRouter>,
  );

describe('Deployment', () => {
  it.each(['open', 'half-open'])('says that its circuit is %s', (circuit) => {
    show(circuit);
    expect(screen.getByText(`circuit ${circuit}`)).toBeTruthy();
  });

  it('says nothing of a circuit that is closed', () => {
    show('closed');
    expect(screen.getByText('ready')).toBeTruthy();
    expect(screen.queryByText(/circuit/)).toBeNull();
  });
});
