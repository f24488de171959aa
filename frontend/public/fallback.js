// What stands in the place of a page whose own script did not load, or failed before it showed
// anything: an update may have taken the file away, or the connection is lost.
(() => {
  const show = () => {
    const root = document.getElementById('root');
    if (!root || root.hasChildNodes()) return;
    const add = (tag, text, more = {}) =>
      main.append(Object.assign(document.createElement(tag), { textContent: text, ...more }));
    const main = document.createElement('main');
    main.setAttribute('role', 'alert');
    add('h1', 'The page could not be loaded');
    add('p', 'Check that inferstack runs and that you are online, then reload the page.');
    add('a', 'Reload the page', { href: window.location.href, className: 'link' });
    root.append(main);
  };
  // Files that fail to load report it to themselves only: it is seen on the way down to them.
  window.addEventListener('error', () => window.setTimeout(show), true);
})();
