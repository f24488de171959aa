/** Typed calls of the API. Whatever goes wrong is thrown as a `Problem` or `ConnectionLost`. */

import createClient from 'openapi-fetch';
import { connectionLost, connectionWorks, unreachable } from './connection';
import { parseExact } from './exact';
import { ConnectionLost, problemOf } from './problem';
import type { components, paths } from './schema';
import { currentToken, endSession } from './session';

export type Schemas = components['schemas'];

/**
 * Milliseconds until a request without an answer counts as lost. The longest wait that a page asks
 * for is 20 s. A change may bring a large input, which takes its time on a slow line.
 */
const PATIENCE = { read: 35_000, change: 120_000 };

/** `fetch` with credentials, whose failures are thrown. At `late`, an answer should have begun. */
export async function send(request: Request, late?: AbortSignal): Promise<Response> {
  const token = currentToken();
  const changes = request.method !== 'GET';
  if (token !== null) request.headers.set('Authorization', `Bearer ${token}`);
  let response: Response;
  try {
    const signal = late && AbortSignal.any([request.signal, late]);
    response = await fetch(request, signal && { signal });
  } catch (error) {
    if (request.signal.aborted) throw error;
    connectionLost();
    throw new ConnectionLost(changes);
  }
  if (unreachable(response.status)) {
    connectionLost();
    throw new ConnectionLost(changes);
  }
  connectionWorks();
  if (response.ok) return response;
  // A token that was replaced meanwhile says nothing about the new one.
  if (response.status === 401 && token !== null && token === currentToken()) {
    endSession({ expired: true });
  }
  throw await problemOf(response, changes);
}

/** The same, for an answer that does not begin in time. */
async function sendInTime(request: Request): Promise<Response> {
  const late = new AbortController();
  const patience = request.method === 'GET' ? PATIENCE.read : PATIENCE.change;
  const alarm = setTimeout(() => late.abort(), patience);
  try {
    return await send(request, late.signal);
  } finally {
    clearTimeout(alarm);
  }
}

export const api = createClient<paths>({ baseUrl: window.location.origin, fetch: sendInTime });

/** The body of an answer; `send` has thrown if there is none. */
export async function body<T>(answer: Promise<{ data?: T }>): Promise<T> {
  return (await answer).data as T;
}

/** The same for one that holds values of users. Ask with `parseAs: 'text'`. */
export async function exactBody<T>(answer: Promise<{ data?: unknown }>): Promise<T> {
  return parseExact((await answer).data as string) as T;
}
