/** Light, dark, or as the system has it. `public/theme.js` does the same before the first paint. */

import { createStore, useStore } from '@/api/store';

export type Theme = 'light' | 'dark' | 'system';

const KEY = 'inferstack.theme';
const system = window.matchMedia('(prefers-color-scheme: dark)');

const theme = createStore<Theme>(remembered());

export function useTheme(): Theme {
  return useStore(theme);
}

export function setTheme(wanted: Theme): void {
  theme.set(wanted);
  try {
    if (wanted === 'system') localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, wanted);
  } catch {
    // Without storage the choice ends with the page.
  }
  apply();
}

/** Puts the theme on the page, and again when the system changes its own. */
export function followTheme(): () => void {
  apply();
  system.addEventListener('change', apply);
  return () => system.removeEventListener('change', apply);
}

function apply(): void {
  const chosen = theme.get();
  const dark = chosen === 'dark' || (chosen === 'system' && system.matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
}

function remembered(): Theme {
  try {
    const found = localStorage.getItem(KEY);
    return found === 'light' || found === 'dark' ? found : 'system';
  } catch {
    return 'system';
  }
}
