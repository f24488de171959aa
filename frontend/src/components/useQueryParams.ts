import { useSearchParams } from 'react-router';

/** The query of the page's address, and how to change some of it: an empty value removes one. */
export function useQueryParams(): [URLSearchParams, (values: Record<string, string>) => void] {
  const [params, setParams] = useSearchParams();
  const change = (values: Record<string, string>) =>
    setParams((now) => {
      const next = new URLSearchParams(now);
      for (const [name, value] of Object.entries(values)) {
        if (value) next.set(name, value);
        else next.delete(name);
      }
      return next;
    });
  return [params, change];
}
