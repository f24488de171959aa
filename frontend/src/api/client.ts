/** Typed calls of the API. Whatever goes wrong is thrown as a `Problem` or `ConnectionLost`. */

import createClient from 'openapi-fetch';
import { connectionLost, connectionWorks, unreachable } from './connection';
import { parseExact } from './exact';
import { ConnectionLost, problemOf } from './problem';
import type { components, paths } from './schema';
import { currentToken, endSession } from './session';

export type Schemas = components['schemas'];

/** `fetch` with credentials, whose failures are thrown. */
export async function send(request: Request): Promise<Response> {
  const token = currentToken();
  const changes = request.method !== 'GET';
  if (token !== null) request.headers.set('Authorization', `Bearer ${token}`);
  let response: Response;
  try {
    response = await fetch(request);
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

export const api = createClient<paths>({ baseUrl: window.location.origin, fetch: send });

/** The body of an answer; `send` has thrown if there is none. */
export async function body<T>(answer: Promise<{ data?: T }>): Promise<T> {
  return (await answer).data as T;
}

/** The same for one that holds values of users. Ask with `parseAs: 'text'`. */
export async function exactBody<T>(answer: Promise<{ data?: unknown }>): Promise<T> {
  return parseExact((await answer).data as string) as T;
}
