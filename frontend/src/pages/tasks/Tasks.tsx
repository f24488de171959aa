import { useState } from 'react';
import { useNavigate } from 'react-router';
import { PAGE_SIZE, useTasks } from '@/api/tasks';
import { Button } from '@/components/Button';
import { Empty, Missing, Outdated } from '@/components/Notice';
import { Pager } from '@/components/Pager';
import { PageTitle, Panel } from '@/components/Panel';
import { useQueryParams } from '@/components/useQueryParams';
import { filterOf, hasFilter } from './filter';
import { TaskFilters } from './TaskFilters';
import { TaskTable } from './TaskTable';

/** The history of tasks, newest first. Filters and page are in the address. */
export function Tasks() {
  const [params, change] = useQueryParams();
  const filter = filterOf(params);
  const tasks = useTasks(filter);
  const page = tasks.data;
  return (
    <div className="space-y-3">
      <PageTitle title="Tasks" actions={<FindTask />} />
      <TaskFilters
        params={params}
        // Another filter begins at its first page.
        onChange={(name, value) => change({ [name]: value, cursor: '' })}
      />
      {page && <Outdated error={tasks.error} />}
      {page ? (
        <Panel
          title={filter.cursor ? 'Older tasks' : 'Newest tasks'}
          aside={
            <Pager
              label="Pages of tasks"
              cursor={filter.cursor}
              next={page.next_cursor}
              stale={tasks.isPlaceholderData}
              onGo={(cursor) => change({ cursor })}
            >
              {!filter.cursor && (
                <span className="text-xs text-muted">{`follows live · ${PAGE_SIZE} a page`}</span>
              )}
            </Pager>
          }
          flush
        >
          {page.tasks.length > 0 ? (
            <TaskTable tasks={page.tasks} stale={tasks.isPlaceholderData} />
          ) : (
            <Empty title="No tasks">
              {hasFilter(params)
                ? 'None matches these filters.'
                : 'Send one in the Playground, or through the API.'}
            </Empty>
          )}
        </Panel>
      ) : (
        <Missing query={tasks} what="tasks" />
      )}
    </div>
  );
}

function FindTask() {
  const navigate = useNavigate();
  const [id, setId] = useState('');
  return (
    <search>
      <form
        className="flex gap-2"
        onSubmit={(event) => {
          event.preventDefault();
          if (id.trim()) void navigate(`/tasks/${encodeURIComponent(id.trim())}`);
        }}
      >
        <input
          className="control w-44 font-mono text-xs sm:w-80"
          aria-label="Task id"
          placeholder="Task id"
          spellCheck={false}
          value={id}
          onChange={(event) => setId(event.target.value)}
        />
        <Button type="submit">Open</Button>
      </form>
    </search>
  );
}
