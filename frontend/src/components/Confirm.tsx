import type { ReactNode } from 'react';
import { Button } from './Button';
import { Dialog } from './Dialog';

interface Props {
  open: boolean;
  title: string;
  /** What the button that goes ahead says. */
  action: string;
  danger?: boolean;
  busy?: boolean;
  onConfirm: () => void;
  onClose: () => void;
  children: ReactNode;
}

/** A question before something that is hard to undo. */
export function Confirm(props: Props) {
  const { open, title, action, danger = false, busy = false, onConfirm, onClose, children } = props;
  return (
    <Dialog open={open} title={title} onClose={onClose}>
      <div className="mt-3 space-y-3">{children}</div>
      <div className="mt-4 flex justify-end gap-2">
        <Button onClick={onClose}>Close</Button>
        <Button kind={danger ? 'danger' : 'primary'} busy={busy} onClick={onConfirm}>
          {action}
        </Button>
      </div>
    </Dialog>
  );
}
