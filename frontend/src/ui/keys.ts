// Single-key shortcuts; they rest while somebody types or a dialog is open.

export type Shortcuts = Record<string, () => void>;

export function shortcuts(table: Shortcuts): void {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || event.repeat) return;
    if (typing(event.target) || document.querySelector("dialog[open]") !== null) return;
    const act = table[event.key];
    if (act === undefined) return;
    event.preventDefault();
    act();
  });
}

function typing(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("input, textarea, select, [contenteditable]") !== null;
}
