/** The access token of whoever signed in. It ends with the browser's tab. */

import { createStore, useStore } from './store';

const KEY = 'inferstack.token';
const USER = 'inferstack.username';

function remembered(key: string): string | null {
  try {
    return sessionStorage.getItem(key);
  } catch {
    return null;
  }
}

const token = createStore<string | null>(remembered(KEY));
/** Whether a session ended by itself, which the sign-in page explains. */
const expired = createStore(false);

export const currentToken = token.get;

export function useToken(): string | null {
  return useStore(token);
}

export function useSessionExpired(): boolean {
  return useStore(expired);
}

/** Whose session this is, or was until it expired; null if there is none, or its user ended it. */
export function lastUser(): string | null {
  return remembered(USER);
}

export function beginSession(fresh: string, username: string): void {
  token.set(fresh);
  keep(KEY, fresh);
  keep(USER, username);
  expired.set(false);
}

export function endSession(how: { expired: boolean }): void {
  expired.set(how.expired && token.get() !== null);
  token.set(null);
  keep(KEY, null);
  if (!how.expired) keep(USER, null);
}

function keep(key: string, value: string | null): void {
  try {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, value);
  } catch {
    // Without storage the session ends with the page.
  }
}
