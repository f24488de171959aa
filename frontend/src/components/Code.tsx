import { useMemo, useState } from 'react';
import { stringifyExact } from '@/api/exact';
import { Button } from './Button';
import { CopyButton } from './Copy';
import { count } from './format';
import { formatJson, isCut } from './json';

interface CodeProps {
  text: string;
  /** What it is, for the button that copies and for screen readers. */
  what: string;
  /** What is copied, if not the text. */
  copy?: string;
}

/** Characters that are shown: more make the page slow, and nobody reads them here. */
const LONGEST = 50_000;

/** A text to read and to copy, line breaks as they are. */
export function Code({ text, what, copy }: CodeProps) {
  return (
    <div className="relative">
      <section
        aria-label={what}
        tabIndex={0}
        className="max-h-96 overflow-auto rounded border border-line bg-sunken"
      >
        <pre className="p-2 pr-10 font-mono text-xs leading-5">{shortened(text)}</pre>
      </section>
      <div className="absolute top-1 right-1 rounded bg-sunken">
        <CopyButton text={copy ?? text} what={what} />
      </div>
    </div>
  );
}

function shortened(text: string): string {
  if (text.length <= LONGEST) return text;
  return `${text.slice(0, LONGEST)}\n… ${count(text.length - LONGEST)} more characters`;
}

/** A value as JSON; long lists are cut until somebody wants them whole. */
export function Json({ value, what }: { value: unknown; what: string }) {
  const [whole, setWhole] = useState(false);
  const cut = useMemo(() => isCut(value), [value]);
  const text = useMemo(
    () => formatJson(value, whole ? Number.POSITIVE_INFINITY : undefined),
    [value, whole],
  );
  return (
    <div className="space-y-1">
      <Code text={text} what={what} copy={stringifyExact(value, 2)} />
      {cut && (
        <Button small kind="quiet" onClick={() => setWhole(!whole)}>
          {whole ? 'Show less' : 'Show everything'}
        </Button>
      )}
    </div>
  );
}
