import { type ChangeEvent, type KeyboardEvent, useId, useRef, useState } from 'react';
import { Button } from '@/components/Button';
import { Field } from '@/components/Fields';
import { bytes } from '@/components/format';
import { dataOf } from './draft';

/** Larger files make the field slow to type in. */
const LARGEST = 4 * 1024 * 1024;

interface Props {
  text: string;
  onChange: (text: string) => void;
  onExample: () => void;
  onSend: () => void;
}

/** The input as JSON: typed, or out of a file. */
export function InputField({ text, onChange, onExample, onSend }: Props) {
  const problem = useId();
  const file = useRef<HTMLInputElement>(null);
  const [refused, setRefused] = useState('');
  const input = dataOf(text);
  const wrong = refused || (text.trim() !== '' && 'wrong' in input ? input.wrong : '');

  const upload = async (event: ChangeEvent<HTMLInputElement>) => {
    const [chosen] = event.target.files ?? [];
    // The same file may be chosen again.
    event.target.value = '';
    if (!chosen) return;
    const found = await readInput(chosen);
    setRefused('wrong' in found ? found.wrong : '');
    if ('text' in found) onChange(found.text);
  };
  const press = (event: KeyboardEvent) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      // A key that is held down sends once.
      if (!event.repeat) onSend();
    }
  };

  return (
    <div className="space-y-1">
      <Field label="Input (the request's data, as JSON)">
        {(id) => (
          <textarea
            id={id}
            className="control h-44 resize-y py-1.5 font-mono text-xs leading-5"
            spellCheck={false}
            value={text}
            aria-invalid={wrong !== ''}
            aria-describedby={problem}
            onKeyDown={press}
            onChange={(event) => {
              setRefused('');
              onChange(event.target.value);
            }}
          />
        )}
      </Field>
      <div className="flex flex-wrap items-center gap-2">
        <input
          ref={file}
          type="file"
          className="hidden"
          aria-label="Input file"
          accept=".json,.txt,.md,.csv,application/json,text/*"
          onChange={(event) => void upload(event)}
        />
        <Button small onClick={() => file.current?.click()}>
          Upload a file…
        </Button>
        <Button small onClick={onExample}>
          Insert an example
        </Button>
      </div>
      <p id={problem} role="status" className="text-xs break-words text-bad">
        {wrong}
      </p>
    </div>
  );
}

/** A JSON object as it is; any other text as `{"text": …}`. */
export async function readInput(file: File): Promise<{ text: string } | { wrong: string }> {
  if (file.size > LARGEST) {
    return { wrong: `${file.name} has ${bytes(file.size)}; up to ${bytes(LARGEST)} fit here.` };
  }
  const content = await file.text();
  if (content.includes('\u0000')) {
    return { wrong: `${file.name} is neither JSON nor text. Put its content into JSON first.` };
  }
  const found = dataOf(content);
  if ('data' in found) return { text: content };
  if (file.name.endsWith('.json')) return { wrong: `${file.name}: ${found.wrong}` };
  return { text: JSON.stringify({ text: content }, null, 2) };
}
