import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { api, body } from './client';
import { connectionWorks, onReconnect } from './connection';
import { ConnectionLost, Problem } from './problem';
import { beginSession, currentToken, endSession } from './session';

const answers = (status: number, value: unknown, type = 'application/json') =>
  vi.fn(async (_: Request | string) =>
    Response.json(value, { status, headers: { 'content-type': type } }),
  );

const problem = {
  type: 'https://inferstack.dev/problems/queue-full',
  title: 'The queue of this model is full',
  status: 503,
  detail: 'echo:1 has 100 tasks waiting',
  retry_after: 2.5,
};

/** A connection that stalls. */
const hangs = (request: Request, { signal = request.signal }: RequestInit = {}) =>
  new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)));

beforeEach(() => endSession({ expired: false }));
afterEach(() => {
  connectionWorks();
  vi.useRealTimers();
});

describe('calls', () => {
  it('carry the token of whoever signed in', async () => {
    const fetched = answers(200, { models: [] });
    vi.stubGlobal('fetch', fetched);
    beginSession('abc', 'ada');
    expect(await body(api.GET('/api/models'))).toEqual({ models: [] });
    const request = fetched.mock.calls[0]?.[0] as Request;
    expect(request.headers.get('authorization')).toBe('Bearer abc');
  });

  it('throw the problem that the server answers', async () => {
    vi.stubGlobal('fetch', answers(503, problem, 'application/problem+json'));
    const error = await body(api.GET('/api/models')).catch((e) => e);
    expect(error).toBeInstanceOf(Problem);
    expect(error).toMatchObject({ slug: 'queue-full', retryAfter: 2.5, status: 503 });
  });

  it('throw a problem also when a proxy answers with something else', async () => {
    vi.stubGlobal('fetch', async () => new Response('<h1>Forbidden</h1>', { status: 403 }));
    await expect(body(api.GET('/api/models'))).rejects.toMatchObject({ status: 403 });
  });

  it('end a session that the server does not take any more', async () => {
    vi.stubGlobal('fetch', answers(401, { type: 'x/unauthenticated', title: 'No' }));
    beginSession('old', 'ada');
    await expect(body(api.GET('/api/models'))).rejects.toBeInstanceOf(Problem);
    expect(currentToken()).toBeNull();
  });

  it('tell of a change that was not answered that the page does not repeat it', async () => {
    for (const fetched of [() => Promise.reject(new TypeError('cut')), answers(503, problem)]) {
      vi.stubGlobal('fetch', fetched);
      await expect(body(api.GET('/api/models'))).rejects.toMatchObject({ changes: false });
      const login = { body: { username: 'a', password: 'b' } };
      await expect(body(api.POST('/api/auth/login', login))).rejects.toMatchObject({
        changes: true,
      });
    }
  });

  it('give up what is not answered in time, and wait longer for a change', async () => {
    vi.useFakeTimers();
    vi.stubGlobal('fetch', hangs);
    const failed = vi.fn();
    const read = body(api.GET('/api/models')).catch(failed);
    await vi.advanceTimersByTimeAsync(34_900);
    expect(failed).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(200);
    await read;
    expect(failed.mock.calls[0]?.[0]).toBeInstanceOf(ConnectionLost);
    const login = { body: { username: 'a', password: 'b' } };
    const change = body(api.POST('/api/auth/login', login)).catch(failed);
    await vi.advanceTimersByTimeAsync(119_900);
    expect(failed).toHaveBeenCalledOnce();
    await vi.advanceTimersByTimeAsync(200);
    await change;
    expect(failed.mock.calls[1]?.[0]).toBeInstanceOf(ConnectionLost);
  });

  it('that the page itself ended tell nothing of the connection', async () => {
    vi.stubGlobal('fetch', hangs);
    const left = new AbortController();
    const read = body(api.GET('/api/models', { signal: left.signal })).catch((e) => e);
    left.abort();
    expect(await read).toMatchObject({ name: 'AbortError' });
  });

  it('notice a lost connection, and find it again by themselves', async () => {
    vi.useFakeTimers();
    const back = vi.fn();
    const forget = onReconnect(back);
    vi.stubGlobal('fetch', vi.fn().mockRejectedValue(new TypeError('Failed to fetch')));
    await expect(body(api.GET('/api/models'))).rejects.toBeInstanceOf(ConnectionLost);
    await vi.advanceTimersByTimeAsync(2100);
    expect(back).not.toHaveBeenCalled();
    vi.stubGlobal('fetch', answers(200, {}));
    await vi.advanceTimersByTimeAsync(2100);
    expect(back).toHaveBeenCalledOnce();
    forget();
  });
});
