/** The access token of whoever signed in. It ends with the browser's tab. */

import { createStore, useStore } from './store';

const KEY = 'inferstack.token';

function remembered(): string | null {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

const token = createStore<string | null>(remembered());
/** Whether a session ended by itself, which the sign-in page explains. */
const expired = createStore(false);

export const currentToken = token.get;

export function useToken(): string | null {
  return useStore(token);
}

export function useSessionExpired(): boolean {
  return useStore(expired);
}

export function beginSession(fresh: string): void {
  keep(fresh);
  expired.set(false);
}

export function endSession(how: { expired: boolean }): void {
  expired.set(how.expired && token.get() !== null);
  keep(null);
}

function keep(value: string | null): void {
  token.set(value);
  try {
    if (value === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, value);
  } catch {
    // Without storage the session ends with the page.
  }
}
