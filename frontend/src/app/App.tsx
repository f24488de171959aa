import { QueryClientProvider } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { BrowserRouter, Navigate, Route, Routes } from 'react-router';
import { onReconnect } from '@/api/connection';
import { DeadLetterDetail } from '@/pages/dead-letters/DeadLetterDetail';
import { DeadLetters } from '@/pages/dead-letters/DeadLetters';
import { Models } from '@/pages/models/Models';
import { NotFound } from '@/pages/NotFound';
import { Overview } from '@/pages/overview/Overview';
import { Playground } from '@/pages/playground/Playground';
import { TaskDetail } from '@/pages/tasks/TaskDetail';
import { Tasks } from '@/pages/tasks/Tasks';
import { ErrorBoundary } from './ErrorBoundary';
import { Gate } from './Gate';
import { createQueryClient } from './queries';
import { Shell } from './Shell';
import { followTheme } from './theme';

export function App() {
  const [client] = useState(createQueryClient);
  useEffect(followTheme, []);
  // What was missed while the server could not be reached.
  useEffect(() => onReconnect(() => void client.invalidateQueries()), [client]);
  return (
    <ErrorBoundary>
      <QueryClientProvider client={client}>
        {/* As a transition, a change of the address could miss one that is not shown yet. */}
        <BrowserRouter useTransitions={false}>
          <Gate>
            <Pages />
          </Gate>
        </BrowserRouter>
      </QueryClientProvider>
    </ErrorBoundary>
  );
}

export function Pages() {
  return (
    <Routes>
      <Route element={<Shell />}>
        <Route index element={<Navigate to="/overview" replace />} />
        <Route path="overview" element={<Overview />} />
        <Route path="playground" element={<Playground />} />
        <Route path="tasks" element={<Tasks />} />
        <Route path="tasks/:taskId" element={<TaskDetail />} />
        <Route path="models" element={<Models />} />
        <Route path="dead-letters" element={<DeadLetters />} />
        <Route path="dead-letters/:taskId" element={<DeadLetterDetail />} />
        <Route path="*" element={<NotFound />} />
      </Route>
    </Routes>
  );
}
