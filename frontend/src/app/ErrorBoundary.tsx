import { Component, type ReactNode } from 'react';
import { Button } from '@/components/Button';
import { ProblemNotice } from '@/components/Notice';

interface State {
  error: unknown;
  failed: boolean;
}

/** Shows what went wrong in the place of a page that failed, instead of nothing. */
export class ErrorBoundary extends Component<{ children: ReactNode }, State> {
  override state: State = { error: null, failed: false };

  static getDerivedStateFromError(error: unknown): State {
    return { error, failed: true };
  }

  override render() {
    if (!this.state.failed) return this.props.children;
    return (
      <div className="mx-auto max-w-2xl space-y-3 p-6">
        <ProblemNotice error={this.state.error} />
        <Button onClick={() => window.location.reload()}>Reload the page</Button>
      </div>
    );
  }
}
