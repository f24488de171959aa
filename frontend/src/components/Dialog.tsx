import { type ReactNode, useEffect, useId, useRef } from 'react';

interface Props {
  open: boolean;
  title: string;
  onClose: () => void;
  children: ReactNode;
}

/** What has to be dealt with first. The browser's own dialog keeps the focus. */
export function Dialog({ open, title, onClose, children }: Props) {
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
      className="m-auto w-[calc(100%-1.5rem)] max-w-md rounded border border-strong-line bg-panel p-4 text-ink backdrop:bg-black/50"
    >
      <h2 id={id} className="text-base font-semibold">
        {title}
      </h2>
      {children}
    </dialog>
  );
}
