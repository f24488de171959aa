import { render, screen } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { MemoryRouter } from 'react-router';
import { describe, expect, it, vi } from 'vitest';
import { ConnectionLost, Problem, Silence } from '@/api/problem';
import { ErrorBoundary } from '@/app/ErrorBoundary';
import { Overview } from '@/pages/overview/Overview';
import { Outdated, ProblemNotice } from './Notice';

const full = new Problem(503, {
  type: 'https://inferstack.dev/problems/queue-full',
  title: 'The queue of this model is full',
  detail: 'echo:1 has 100 tasks waiting',
  retry_after: 2.5,
});

describe('ProblemNotice', () => {
  it('says what happened, where, and what to do', async () => {
    const retry = vi.fn();
    render(<ProblemNotice error={full} onRetry={retry} />);
    const text = screen.getByRole('alert').textContent;
    expect(text).toContain('The queue of this model is full');
    expect(text).toContain('echo:1 has 100 tasks waiting');
    expect(text).toContain('higher priority. Try again in 3 s.');
    await userEvent.click(screen.getByRole('button', { name: 'Try again' }));
    expect(retry).toHaveBeenCalledOnce();
  });

  it('names the fields that are wrong, and offers no repeat that cannot help', () => {
    const errors = [{ field: 'data.sleep_ms', message: 'is not a number' }];
    const invalid = new Problem(422, { type: 'x/invalid-input', title: 'Not taken', errors });
    render(<ProblemNotice error={invalid} onRetry={() => {}} />);
    expect(screen.getByText('data.sleep_ms')).toBeTruthy();
    expect(screen.queryByRole('button')).toBeNull();
  });

  it('promises a repeat of what changes nothing, and asks for one of what does', () => {
    const down = { type: 'x/queue-unavailable', title: 'Redis is away', retry_after: 1 };
    for (const of of [
      (c: boolean) => new ConnectionLost(c),
      (c: boolean) => new Problem(503, down, c),
    ]) {
      const reads = render(<ProblemNotice error={of(false)} />);
      expect(screen.getByRole('alert').textContent).toContain('tries again by itself');
      reads.unmount();
      const changes = render(<ProblemNotice error={of(true)} />);
      expect(screen.getByRole('alert').textContent).toContain('Repeat it: nothing is done twice.');
      expect(screen.getByRole('alert').textContent).not.toContain('by itself');
      changes.unmount();
    }
  });

  it('leads to the task that there may be', () => {
    const away = new Problem(
      503,
      { type: 'x/queue-unavailable', task_id: '0197-4d1f2c3b0a99' },
      true,
    );
    render(<ProblemNotice error={away} />, { wrapper: MemoryRouter });
    const link = screen.getByRole('link', { name: /^task / });
    expect(link.getAttribute('href')).toBe('/tasks/0197-4d1f2c3b0a99');
  });

  it('does not lead to a task that is not there', () => {
    const none = new Problem(404, { type: 'x/task-not-found', task_id: '0197-4d1f2c3b0a99' });
    render(<ProblemNotice error={none} />, { wrapper: MemoryRouter });
    expect(screen.queryByRole('link')).toBeNull();
  });

  it('has advice for every problem, known or not', () => {
    const named = [new ConnectionLost(), new Silence(5), new Problem(500, {})];
    for (const error of [...named, new Error('oops'), 'oops']) {
      const { unmount } = render(<ProblemNotice error={error} />);
      expect(screen.getByRole('alert').textContent).toMatch(/[Tt]ry|tries|tried|Reload/);
      unmount();
    }
  });
});

describe('a lost connection', () => {
  it('is not told twice where there is something to show', () => {
    const { container } = render(<Outdated error={new ConnectionLost()} />);
    expect(container.textContent).toBe('');
    render(<Outdated error={full} />);
    expect(screen.getByRole('alert')).toBeTruthy();
  });

  it('leaves no page blank', async () => {
    vi.stubGlobal('fetch', () => Promise.reject(new TypeError('refused')));
    render(<Overview />);
    const alert = await screen.findByRole('alert');
    expect(alert.textContent).toContain('The server cannot be reached');
    vi.unstubAllGlobals();
  });
});

describe('ErrorBoundary', () => {
  it('shows a failed page as a problem instead of nothing', () => {
    vi.spyOn(console, 'error').mockImplementation(() => {});
    const Broken = () => {
      throw new Error('undefined is not a function');
    };
    render(
      <ErrorBoundary>
        <Broken />
      </ErrorBoundary>,
    );
    expect(screen.getByRole('alert').textContent).toContain('undefined is not a function');
    expect(screen.getByRole('button', { name: 'Reload the page' })).toBeTruthy();
  });
});
