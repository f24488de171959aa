import { env } from 'node:process';
import tailwindcss from '@tailwindcss/vite';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

/** Where `npm run dev` finds the API. */
const API = env.INFERSTACK_URL ?? 'http://127.0.0.1:8000';

export default defineConfig({
  plugins: [react(), tailwindcss()],
  resolve: { alias: { '@': new URL('./src', import.meta.url).pathname } },
  build: {
    target: 'es2022',
    // Files that are no module may not be inlined as data: the page's policy forbids it.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: { checks: { pluginTimings: false } },
  },
  server: { proxy: { '/api': API, '/health': API } },
  test: {
    environment: 'jsdom',
    // One simulated browser for all files: making one takes longer than the tests.
    pool: 'threads',
    isolate: false,
    fileParallelism: false,
    include: ['src/**/*.test.{ts,tsx}'],
    setupFiles: ['src/app/testing.ts'],
    restoreMocks: true,
    unstubGlobals: true,
  },
});
