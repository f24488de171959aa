import { useState } from 'react';
import { useMe } from '@/api/auth';
import type { Submission } from '@/api/tasks';
import { Code } from '@/components/Code';
import { Segments } from '@/components/Fields';
import { Panel } from '@/components/Panel';
import { curl, python } from './snippets';

const LANGUAGES = [
  { value: 'curl', text: 'curl' },
  { value: 'python', text: 'Python' },
] as const;

/** The request of the form, to be sent from somewhere else. */
export function Snippets({ submission }: { submission: Submission }) {
  const [language, setLanguage] = useState<'curl' | 'python'>('curl');
  const token = useMe().data?.anonymous === false;
  const write = language === 'curl' ? curl : python;
  const text = write({ submission, url: window.location.origin, token });
  return (
    <Panel
      title="The same request"
      aside={
        <Segments
          label="Language"
          hideLabel
          value={language}
          options={LANGUAGES}
          onChange={setLanguage}
        />
      }
    >
      <Code text={text} what={`the request for ${language}`} />
    </Panel>
  );
}
