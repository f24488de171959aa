import { QueryClientProvider } from '@tanstack/react-query';
import { render, screen } from '@testing-library/react';
import { MemoryRouter } from 'react-router';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { sampleModel } from '@/api/models.sample';
import { createQueryClient } from '@/app/queries';
import { Models } from './Models';

const echo = sampleModel({ default: true });

/** The page at a hash, until it shows its model; returns what it scrolled to. */
async function open(hash: string) {
  vi.stubGlobal('fetch', async () => Response.json({ models: [echo] }));
  const seen: string[] = [];
  Element.prototype.scrollIntoView = function () {
    seen.push(this.id);
  };
  render(
    <QueryClientProvider client={createQueryClient()}>
      <MemoryRouter initialEntries={[`/models${hash}`]}>
        <Models />
      </MemoryRouter>
    </QueryClientProvider>,
  );
  expect(await screen.findByRole('region', { name: /^echo:1/ })).toBeTruthy();
  return seen;
}

afterEach(() => Reflect.deleteProperty(Element.prototype, 'scrollIntoView'));

describe('Models', () => {
  it('goes to the deployment that its address names', async () => {
    expect(await open('#echo%3A1')).toEqual(['echo:1']);
  });

  it.each(['#%', '#nobody'])('shows all the same at %s, which names none', async (hash) => {
    expect(await open(hash)).toEqual([]);
  });
});
