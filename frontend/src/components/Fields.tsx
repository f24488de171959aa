import { type ReactNode, useId } from 'react';

interface FieldProps {
  label: string;
  children: (id: string) => ReactNode;
  className?: string;
}

/** A label above its control. */
export function Field({ label, children, className = '' }: FieldProps) {
  const id = useId();
  return (
    <div className={`flex min-w-0 flex-col gap-1 ${className}`}>
      <label htmlFor={id} className="text-xs font-medium text-muted">
        {label}
      </label>
      {children(id)}
    </div>
  );
}

export interface Option {
  value: string;
  text: string;
  disabled?: boolean;
}

interface SelectProps {
  label: string;
  value: string;
  options: Option[];
  onChange: (value: string) => void;
  className?: string;
}

export function SelectField({ label, value, options, onChange, className }: SelectProps) {
  return (
    <Field label={label} {...(className ? { className } : {})}>
      {(id) => (
        <select
          id={id}
          className="control"
          value={value}
          onChange={(event) => onChange(event.target.value)}
        >
          {options.map((option) => (
            <option key={option.value} value={option.value} disabled={option.disabled}>
              {option.text}
            </option>
          ))}
        </select>
      )}
    </Field>
  );
}

interface SegmentsProps<T extends string> {
  label: string;
  value: T;
  options: readonly { value: T; text: ReactNode; label?: string }[];
  onChange: (value: T) => void;
  hideLabel?: boolean;
}

/** One of a few, all in sight. Radio buttons underneath: arrow keys move between them. */
export function Segments<T extends string>(props: SegmentsProps<T>) {
  const name = useId();
  return (
    <fieldset className="flex min-w-0 flex-col gap-1">
      <legend className={props.hideLabel ? 'sr-only' : 'mb-1 text-xs font-medium text-muted'}>
        {props.label}
      </legend>
      <div className="inline-flex h-8 self-start overflow-hidden rounded border border-strong-line">
        {props.options.map((option) => (
          <label
            key={option.value}
            title={option.label}
            className="flex cursor-pointer items-center border-strong-line px-2.5 not-first:border-l has-checked:bg-busy-tint has-checked:font-medium has-checked:text-busy has-focus-visible:outline-2 has-focus-visible:-outline-offset-2 has-focus-visible:outline-ink"
          >
            <input
              type="radio"
              className="sr-only"
              name={name}
              value={option.value}
              checked={option.value === props.value}
              onChange={() => props.onChange(option.value)}
              aria-label={option.label}
            />
            {option.text}
          </label>
        ))}
      </div>
    </fieldset>
  );
}
