// A short tone for what ends an order, when the user asked for it on this device (settings page).
import type { Tone } from "./toasts.ts";

const KEY = "orderwire.sound";
const NOTES: Partial<Record<Tone, readonly number[]>> = { good: [660, 880], bad: [330, 220], info: [520] };

let context: AudioContext | null = null;

export function soundOn(): boolean {
  try {
    return localStorage.getItem(KEY) === "on";
  } catch {
    return false;
  }
}

export function setSound(on: boolean): void {
  try {
    localStorage.setItem(KEY, on ? "on" : "off");
  } catch {
    // Private windows may refuse storage; then there is no sound.
  }
}

/** Play the tone of a message; at most one is heard at a time. */
export function chime(tone: Tone): void {
  const notes = NOTES[tone];
  if (notes === undefined || !soundOn()) return;
  context ??= new AudioContext();
  const gain = new GainNode(context, { gain: 0.05 });
  gain.connect(context.destination);
  for (const [index, frequency] of notes.entries()) {
    const note = new OscillatorNode(context, { frequency, type: "sine" });
    const start = context.currentTime + index * 0.12;
    note.connect(gain);
    note.start(start);
    note.stop(start + 0.1);
  }
}
