import { useQuery } from '@tanstack/react-query';
import { api, body, type Schemas } from './client';
import { beginSession, useToken } from './session';

export type Me = Schemas['Me'];

/** Who the API takes us for; a `Problem` with status 401 if we must sign in. */
export function useMe() {
  const token = useToken();
  return useQuery({
    queryKey: ['me', token],
    queryFn: ({ signal }) => body(api.GET('/api/auth/me', { signal })),
    staleTime: 60_000,
  });
}

export async function signIn(username: string, password: string): Promise<void> {
  const answer = await body(api.POST('/api/auth/login', { body: { username, password } }));
  beginSession(answer.access_token, username);
}
