/**
 * The head of a live view: how the agent is, what it is called, and where it is found.
 * @module header
 */
import { h } from "../../static/dom.js";
import { signButton } from "./icons.js";
import { ShareView } from "./share-view.js";
import { setText } from "./words.js";

/** @typedef {import("./live-view.js").Context} Context */

/** @type {Record<string, [string, string]>} */
const LIGHTS = {
  live: ["Live", "The agent answers"],
  busy: ["Live, a cell is running", "The agent answers beside the cell"],
  asleep: ["Asleep", "Not in memory; the next arrival wakes it with its stored state"],
  ready: ["Ready", "Nobody has come yet; the first arrival starts it"],
  away: ["Not linked", "The link to Jupyter Server is down; clients wait"],
  stopped: ["Stopped", "The class is not served any more; run its cell again"],
  quiet: ["Kernel away", "The kernel does not answer; run the cell again"],
  still: ["Still picture", "As it was saved; run the cell for the live view"],
  waiting: ["Connecting…", "The kernel was asked"],
};
const NOTICE_MS = 8000;

export class Header {
  #light = h("span", { class: "ja-light" });
  #word = h("span", { class: "ja-light-word", role: "status" });
  #title = h("strong", { class: "ja-class" });
  #name = h("span", { class: "ja-instance" });
  #names = h("select", { class: "ja-instance", "aria-label": "Instance", hidden: true });
  #address = h("code", { class: "ja-address" });
  #open = h("a", { class: "ja-open", target: "_blank", rel: "noopener" }, "Open page");
  #notice = h("p", { class: "ja-notice", role: "alert" });
  #copy;
  #share;
  #known = "";
  #noticeTimer = 0;

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.#copy = signButton("copy", "Copy the address", () => void this.#copyAddress());
    this.#names.addEventListener("change", () => void context.act("select", { name: this.#names.value }));
    this.#share = new ShareView(context);
    const slash = h("span", { class: "ja-muted ja-slash", "aria-hidden": "true" }, "/");
    const who = h("div", { class: "ja-head-who" }, this.#light, this.#title, slash, this.#name, this.#names, this.#word);
    const where = h("div", { class: "ja-head-where" }, this.#address, this.#copy, this.#share.button, this.#open);
    this.element = h("div", { class: "ja-head" }, who, where, this.#notice, this.#share.element);
  }

  update() {
    const { about } = this.context;
    setText(this.#title, about.class ?? "");
    setText(this.#name, about.name ?? "");
    setText(this.#address, this.context.address());
    this.#address.title = this.context.address();
    this.#open.href = this.context.pageUrl();
    this.#share.update(Boolean(about.shareable));
    this.#showLight();
    this.#showNames(about.names ?? [], about.name ?? "");
  }

  #showLight() {
    const look = this.context.light;
    const [word, explanation] = LIGHTS[look] ?? LIGHTS.waiting;
    this.#light.dataset.look = look;
    setText(this.#word, word);
    this.#word.title = explanation;
  }

  /**
   * @param {[string, number][]} names
   * @param {string} chosen
   */
  #showNames(names, chosen) {
    const known = JSON.stringify([names, chosen]);
    if (known === this.#known) return;
    this.#known = known;
    /** @type {[string, number][]} */
    const all = names.some(([name]) => name === chosen) ? names : [[chosen, 0], ...names];
    const isChoice = all.length > 1;
    this.#names.hidden = !isChoice;
    this.#name.hidden = isChoice;
    if (document.activeElement !== this.#names) {
      const options = all.map(([name, count]) => h("option", { value: name }, count ? `${name} (${count})` : name));
      this.#names.replaceChildren(...options);
    }
    this.#names.value = chosen;
  }

  /** @param {string} text Shown for a while. */
  notice(text) {
    clearTimeout(this.#noticeTimer);
    setText(this.#notice, text);
    this.#noticeTimer = setTimeout(() => setText(this.#notice, ""), NOTICE_MS);
  }

  async #copyAddress() {
    const address = this.context.address();
    try {
      await navigator.clipboard.writeText(address);
      this.#copy.classList.add("ja-done");
      setTimeout(() => this.#copy.classList.remove("ja-done"), 1500);
    } catch {
      window.prompt("The agent's address", address); // no clipboard on plain http
    }
  }
}
