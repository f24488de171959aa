import { render, screen } from '@testing-library/react';
import { MemoryRouter } from 'react-router';
import { describe, expect, it } from 'vitest';
import { sampleModel } from '@/api/models.sample';
import { Deployment } from './Deployment';

const show = (circuit: string) =>
  render(
    <MemoryRouter>
      <Deployment of={sampleModel({ circuit })} />
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
