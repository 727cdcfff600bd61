// Asks before an order is cancelled, and says what went wrong in the same place.
import { need, setText } from "./dom.ts";
import { Refused } from "./http.ts";

export interface Question {
  title: string;
  text: string;
  yes: string;
  no: string;
  /** Runs on yes; the dialog stays open with the message when it is refused. */
  act: () => Promise<void>;
}

export class Ask {
  readonly #dialog = need<HTMLDialogElement>("#ask");
  readonly #yes = need<HTMLButtonElement>("#ask-yes");
  #question: Question | null = null;
  #busy = false;

  constructor() {
    this.#yes.addEventListener("click", () => void this.#act());
  }

  open(question: Question): void {
    this.#question = question;
    setText(need("#ask-title"), question.title);
    setText(need("#ask-text"), question.text);
    setText(this.#yes, question.yes);
    setText(need("#ask-no"), question.no);
    need("#ask-problem").hidden = true;
    this.#dialog.showModal();
    this.#yes.focus();
  }

  async #act(): Promise<void> {
    if (this.#busy || this.#question === null) return;
    this.#busy = true;
    this.#yes.setAttribute("aria-busy", "true");
    try {
      await this.#question.act();
      this.#dialog.close();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setText(need("#ask-problem span"), error.message);
      need("#ask-problem").hidden = false;
    } finally {
      this.#busy = false;
      this.#yes.removeAttribute("aria-busy");
    }
  }
}
