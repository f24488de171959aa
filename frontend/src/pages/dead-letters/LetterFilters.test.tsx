import { QueryClientProvider } from '@tanstack/react-query';
import { render, screen } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { describe, expect, it, vi } from 'vitest';
import type { LetterFilter } from '@/api/deadLetters';
import { createQueryClient } from '@/app/queries';
import { LetterFilters } from './LetterFilters';

describe('LetterFilters', () => {
  it('shows the type of error that is in force, and leaves the focus where somebody types', async () => {
    vi.stubGlobal('fetch', async () => Response.json({ models: [] }));
    const onChange = vi.fn();
    const client = createQueryClient();
    const form = (filter: LetterFilter) => (
      <QueryClientProvider client={client}>
        <LetterFilters filter={filter} onChange={onChange} />
      </QueryClientProvider>
    );
    const { rerender } = render(form({}));
    const field = screen.getByLabelText('Type of error') as HTMLInputElement;
    await userEvent.type(field, ' engine-error{Enter}');
    expect(onChange).toHaveBeenCalledWith('error', 'engine-error');
    rerender(form({ error: 'engine-error' }));
    expect(field.value).toBe('engine-error');
    expect(document.activeElement).toBe(field);
    // The link to the page leads to all dead letters.
    rerender(form({}));
    expect(field.value).toBe('');
  });
});
