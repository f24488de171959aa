/**
 * Idempotency keys: a request that got no answer may have made a task. Sent again under the same
 * key, it finds that task instead of making another.
 */

import { Problem } from './problem';

/** The keys of requests that got no receipt yet. They end with the page. */
const unanswered = new Map<string, string>();

/** Sends a request under a key of its own, which stays the same until `send` succeeds. */
export async function withKey<T>(request: string, send: (key: string) => Promise<T>): Promise<T> {
  const before = unanswered.get(request);
  const key = before ?? freshKey();
  unanswered.set(request, key);
  try {
    const answer = await send(key);
    unanswered.delete(request);
    return answer;
  } catch (error) {
    const refused = error instanceof Problem && error.status < 500;
    // What was refused at its first try has made nothing.
    if (refused && before === undefined) unanswered.delete(request);
    throw error;
  }
}

/** 128 random bits. `randomUUID` is missing where the page came without TLS. */
function freshKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
