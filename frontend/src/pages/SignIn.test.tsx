import { QueryClientProvider } from '@tanstack/react-query';
import { render, screen, waitFor } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { currentToken, endSession } from '@/api/session';
import { Account } from '@/app/Account';
import { createQueryClient } from '@/app/queries';
import { SignIn } from './SignIn';

const DRAFT = 'inferstack.draft';

/** Signs in at the page that asks for it. */
async function signIn(username: string) {
  vi.stubGlobal('fetch', async () => Response.json({ access_token: `of ${username}` }));
  const { unmount } = render(
    <QueryClientProvider client={createQueryClient()}>
      <SignIn />
    </QueryClientProvider>,
  );
  await userEvent.type(screen.getByLabelText('Username'), username);
  await userEvent.type(screen.getByLabelText('Password'), 'secret');
  await userEvent.click(screen.getByRole('button', { name: 'Sign in' }));
  await waitFor(() => expect(currentToken()).toBe(`of ${username}`));
  unmount();
}

beforeEach(() => {
  sessionStorage.clear();
  endSession({ expired: false });
});

describe('what was typed in the playground', () => {
  it('outlives the session of its user, and is not for another one', async () => {
    await signIn('ada');
    sessionStorage.setItem(DRAFT, '{"text": "of ada"}');
    endSession({ expired: true });
    await signIn('ada');
    expect(sessionStorage.getItem(DRAFT)).toContain('of ada');
    endSession({ expired: true });
    await signIn('bob');
    await waitFor(() => expect(sessionStorage.getItem(DRAFT)).toBeNull());
  });

  it('is kept when a local caller signs in', async () => {
    sessionStorage.setItem(DRAFT, '{"text": "local"}');
    await signIn('ada');
    expect(sessionStorage.getItem(DRAFT)).toContain('local');
  });

  it('ends when its user signs out', async () => {
    await signIn('ada');
    sessionStorage.setItem(DRAFT, '{"text": "of ada"}');
    const me = { username: 'ada', tenant: 'default', role: 'user', anonymous: false };
    vi.stubGlobal('fetch', async () => Response.json(me));
    render(
      <QueryClientProvider client={createQueryClient()}>
        <Account />
      </QueryClientProvider>,
    );
    await userEvent.click(await screen.findByRole('button', { name: 'Sign out' }));
    expect(sessionStorage.getItem(DRAFT)).toBeNull();
  });
});
