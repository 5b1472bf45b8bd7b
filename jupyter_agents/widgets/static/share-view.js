/**
 * The panel's way to share: a link to this one instance, its QR code, and the button that ends it.
 * @module share-view
 */
import { h } from "../../static/dom.js";
import { signButton } from "./icons.js";

/** @typedef {import("./live-view.js").Context} Context */
/** @typedef {{ id: string, url: string, qr: string, text: string }} Made */

const LIVES = [
  ["30m", "30 minutes"],
  ["2h", "2 hours"],
  ["1d", "1 day"],
  ["7d", "7 days"],
];

export class ShareView {
  #life = h("select", { class: "ja-input", "aria-label": "How long the link is good" });
  #readonly = h("input", { type: "checkbox" });
  #make = h("button", { type: "button", class: "ja-button ja-primary" }, "Make a link");
  #made = h("div", { class: "ja-share-made", "aria-live": "polite" });

  /** @param {Context} context */
  constructor(context) {
    this.context = context;
    this.#life.append(...LIVES.map(([value, words]) => h("option", { value }, words)));
    this.#life.value = "2h";
    this.#make.addEventListener("click", () => void this.#share());
    const looking = h("label", { class: "ja-share-looking" }, this.#readonly, "for looking only");
    const wish = h("div", { class: "ja-share-wish" }, this.#life, looking, this.#make);
    const what = "Who has the link is let in to this instance, and to nothing else.";
    const explained = h("p", { class: "ja-muted" }, what);
    this.element = h("div", { class: "ja-share", role: "group", "aria-label": "Share", hidden: true });
    this.element.append(wish, explained, this.#made);
    this.button = signButton("share", "Share by a link", () => this.toggle(), { "aria-expanded": "false" });
  }

  toggle(isOpen = this.element.hidden) {
    this.element.hidden = !isOpen;
    this.button.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) this.#life.focus();
    else this.#made.replaceChildren(); // a link does not stay on the screen by itself
  }

  /** @param {boolean} isPossible Whether the class takes links. */
  update(isPossible) {
    this.button.hidden = !isPossible;
    if (!isPossible && !this.element.hidden) this.toggle(false);
  }

  async #share() {
    this.#make.disabled = true;
    const given = { expires: this.#life.value, readonly: this.#readonly.checked, page: this.context.pageUrl() };
    const made = await this.context.act("share", given);
    this.#make.disabled = false;
    if (made) this.#show(made);
  }

  /** @param {Made} made */
  #show(made) {
    const address = h("input", { class: "ja-input ja-share-url", readonly: true, value: made.url, "aria-label": "Link" });
    address.addEventListener("focus", () => address.select());
    const copy = signButton("copy", "Copy the link", () => void this.#copy(address));
    const end = h("button", { type: "button", class: "ja-button" }, "Revoke");
    end.addEventListener("click", () => void this.#revoke(made));
    const code = h("img", { class: "ja-share-code", src: made.qr, alt: "QR code of the link" });
    const row = h("div", { class: "ja-share-wish" }, address, copy, end);
    this.#made.replaceChildren(code, h("div", { class: "ja-share-what" }, h("p", {}, made.text), row));
  }

  /** @param {HTMLInputElement} address */
  async #copy(address) {
    address.select();
    try {
      await navigator.clipboard.writeText(address.value);
    } catch {
      document.execCommand("copy"); // no clipboard on plain http
    }
  }

  /** @param {Made} made */
  async #revoke(made) {
    const done = await this.context.act("unshare", { id: made.id });
    if (done) this.#made.replaceChildren(h("p", {}, "Revoked: who came by this link was sent away."));
  }
}
