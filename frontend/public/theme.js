// Same rule as src/app/theme.ts; a file of its own, since the page allows no inline script.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem('inferstack.theme');
  } catch {
    // Storage may be forbidden; then the system decides.
  }
  const dark =
    chosen === 'dark' || (chosen !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
})();
