import { type ReactNode, useEffect, useId, useRef } from 'react';
import { Button } from './Button';

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

/** A question before something that is hard to undo. The browser's own dialog keeps the focus. */
export function Confirm(props: Props) {
  const { open, title, action, danger = false, busy = false, onConfirm, onClose, children } = props;
  const id = useId();
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const element = dialog.current;
    if (open && !element?.open) element?.showModal();
    if (!open && element?.open) element.close();
  }, [open]);
  return (
    <dialog
      ref={dialog}
      aria-labelledby={id}
      onClose={onClose}
      className="m-auto w-full max-w-md rounded border border-strong-line bg-panel p-4 text-ink backdrop:bg-black/50"
    >
      <h2 id={id} className="text-base font-semibold">
        {title}
      </h2>
      <div className="mt-3 space-y-3">{children}</div>
      <div className="mt-4 flex justify-end gap-2">
        <Button onClick={onClose}>Close</Button>
        <Button kind={danger ? 'danger' : 'primary'} busy={busy} onClick={onConfirm}>
          {action}
        </Button>
      </div>
    </dialog>
  );
}
