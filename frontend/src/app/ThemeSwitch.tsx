import { Segments } from '@/components/Fields';
import { MoonIcon, SunIcon, SystemIcon } from '@/components/icons';
import { setTheme, useTheme } from './theme';

const THEMES = [
  { value: 'light', text: <SunIcon />, label: 'Light' },
  { value: 'dark', text: <MoonIcon />, label: 'Dark' },
  { value: 'system', text: <SystemIcon />, label: 'As the system' },
] as const;

export function ThemeSwitch() {
  return (
    <Segments label="Theme" hideLabel value={useTheme()} options={THEMES} onChange={setTheme} />
  );
}
