import { useEffect, useState } from 'react';
import { Button } from './Button';
import { CheckIcon, CopyIcon } from './icons';

/** Copies a text, and says that it did. */
export function CopyButton({ text, what }: { text: string; what: string }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return;
    const timer = setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(timer);
  }, [done]);
  const copy = () => {
    // Browsers offer no clipboard to pages that are neither local nor encrypted.
    void navigator.clipboard?.writeText(text).then(() => setDone(true));
  };
  if (!navigator.clipboard) return null;
  return (
    <Button kind="quiet" small onClick={copy} aria-label={done ? 'Copied' : `Copy ${what}`}>
      {done ? <CheckIcon /> : <CopyIcon />}
    </Button>
  );
}
