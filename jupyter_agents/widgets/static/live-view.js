/**
 * What anywidget renders: the panel, or one of its parts alone.
 *
 * Facts come from the kernel by `link`, each view draws its own; nothing here decides anything about an agent.
 * @module live-view
 */
import { h } from "../../static/dom.js";
import { CallsView } from "./calls-view.js";
import { ConnectionsView } from "./connections-view.js";
import { Header } from "./header.js";
import { Link, jupyterPage, unpacked } from "./link.js";
import { MessagesView } from "./messages-view.js";
import { ProblemsView } from "./problems-view.js";
import { StateView } from "./state-view.js";
import { setText } from "./words.js";

/**
 * What views know of the whole.
 * @typedef {object} Context
 * @property {Link} link
 * @property {any} about The facts of the header.
 * @property {boolean} isLive Whether something can be done.
 * @property {string} light
 * @property {() => string} address For clients.
 * @property {() => string} pageUrl Of the agent's own page.
 * @property {() => import("./words.js").Who[]} choices Connections that a message can be sent to.
 * @property {(key: string) => void} show Turns to a view.
 * @property {(what: string, given?: any) => Promise<any>} act Asks the kernel; a refusal is shown, and gives undefined.
 */

const STILL_AFTER_MS = 4000;
const PICTURE_MS = 20_000;
const NARROW_PX = 680;
const OVERVIEW = ["connections", "state", "messages"];

const VIEWS = {
  connections: ConnectionsView,
  state: StateView,
  messages: MessagesView,
  calls: CallsView,
  problems: ProblemsView,
};

/** @typedef {keyof typeof VIEWS} Key */

/** One view with its head. */
class Section {
  /**
   * @param {Key} key
   * @param {Context} context
   */
  constructor(key, context) {
    this.key = key;
    this.view = new VIEWS[key](context);
    this.count = h("span", { class: "ja-count" });
    const head = h("div", { class: "ja-section-head" }, h("h3", {}, this.view.title), h("div", { class: "ja-tools" }, ...this.view.tools));
    this.element = h("div", { class: "ja-section", "data-key": key, role: "group", "aria-label": this.view.title }, head, this.view.element);
  }

  showCount() {
    const { badge } = this.view;
    setText(this.count, badge > 0 ? badge.toLocaleString("en") : "");
  }
}

/** The row of tabs above the sections. */
class Tabs {
  #body;
  #tabs;

  /**
   * @param {Section[]} sections
   * @param {HTMLElement} body
   * @param {(key: string) => void} onSelect
   */
  constructor(sections, body, onSelect) {
    this.#body = body;
    this.onSelect = onSelect;
    const overview = this.#tab("overview", "Overview", null);
    this.#tabs = [overview, ...sections.map(({ key, view, count }) => this.#tab(key, view.title, count))];
    this.element = h("div", { class: "ja-tabs", role: "tablist", "aria-label": "Views" }, ...this.#tabs);
    this.element.addEventListener("keydown", (event) => this.#keyPressed(event));
  }

  /**
   * @param {string} key
   * @param {string} title
   * @param {Node | null} count
   */
  #tab(key, title, count) {
    const id = `${this.#body.id}-${key}`;
    const look = { type: "button", role: "tab", id, class: "ja-tab", "data-key": key, "aria-controls": this.#body.id };
    return h("button", { ...look, onclick: () => this.select(key) }, title, count);
  }

  /** @param {string} key */
  select(key) {
    for (const tab of this.#tabs) {
      const isChosen = tab.dataset.key === key;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      if (isChosen) this.#body.setAttribute("aria-labelledby", tab.id);
    }
    this.onSelect(key);
  }

  /** @param {boolean} isNarrow There is no room for an overview. */
  setNarrow(isNarrow) {
    const [overview, first] = this.#tabs;
    overview.hidden = isNarrow;
    if (isNarrow && overview.getAttribute("aria-selected") === "true") this.select(first.dataset.key ?? "");
  }

  /** @param {KeyboardEvent} event */
  #keyPressed(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const tabs = this.#tabs.filter((tab) => !tab.hidden);
    const at = tabs.findIndex((tab) => tab.getAttribute("aria-selected") === "true");
    const next = tabs[(at + step + tabs.length) % tabs.length];
    this.select(next.dataset.key ?? "");
    next.focus();
  }
}

let views = 0; // makes ids unique on the page

class LiveView {
  /** @type {any} */ about = {};
  #presence = "waiting";
  #wasHere = false;
  #ending = new AbortController();
  #isChanged = false;
  /** @type {Section[]} */ #sections;
  /** @type {Tabs | null} */ #tabs = null;

  /**
   * @param {import("./link.js").Model} model
   * @param {HTMLElement} place
   */
  constructor(model, place) {
    this.model = model;
    const part = model.get("_part");
    const keys = /** @type {Key[]} */ (part === "panel" ? Object.keys(VIEWS) : [part]);
    this.header = new Header(this);
    this.#sections = keys.map((key) => new Section(key, this));
    this.body = h("div", { class: "ja-body", id: `ja-live-${++views}` }, ...this.#sections.map(({ element }) => element));
    // data-lm-suppress-shortcuts: JupyterLab would take keys that are meant for the tree
    const look = { class: "ja ja-live", "data-part": part, "data-lm-suppress-shortcuts": "true" };
    this.root = h("div", look, this.header.element, this.body);
    this.root.addEventListener("keydown", submitByEnter);
    if (part === "panel") this.#addTabs();
    else this.#select(part);
    place.classList.add("ja-live-place");
    place.replaceChildren(this.root);
    this.#showStill();
    this.link = new Link(model, {
      onFacts: (facts, isWhole) => this.#take(facts, isWhole),
      onPresence: (isHere) => this.#setPresence(isHere ? "here" : this.#wasHere ? "quiet" : "still"),
    });
    this.#startClocks();
  }

  // ---- what the views ask ----

  get light() {
    return this.#presence === "here" ? (this.about.light ?? "live") : this.#presence;
  }

  get isLive() {
    return this.#presence === "here" && this.about.light !== "stopped";
  }

  #base() {
    const page = jupyterPage();
    return page && !this.about.token ? location.origin + page.baseUrl : (this.about.base ?? "");
  }

  address() {
    return `${this.#base().replace(/^http/, "ws")}${this.about.path ?? ""}`;
  }

  pageUrl() {
    const query = this.about.token ? `?token=${encodeURIComponent(this.about.token)}` : "";
    return `${this.#base()}${this.about.path ?? ""}${query}`;
  }

  choices() {
    const rows = this.#sections.find(({ key }) => key === "connections")?.view;
    return rows instanceof ConnectionsView ? rows.choices : [];
  }

  /**
   * @param {string} what
   * @param {any} [given]
   */
  async act(what, given) {
    try {
      return await this.link?.ask(what, given);
    } catch (error) {
      this.header.notice(/** @type {Error} */ (error).message);
      return undefined;
    }
  }

  /** @param {string} key */
  show(key) {
    this.#tabs?.select(key);
  }

  // ---- facts ----

  #showStill() {
    const still = structuredClone(this.model.get("_still") ?? {});
    if (still.about) this.#show(unpacked(still, []), true);
  }

  /**
   * @param {any} facts
   * @param {boolean} isWhole
   */
  #take(facts, isWhole) {
    this.#isChanged = true;
    if (isWhole) this.#wasHere = true;
    if (isWhole && this.#presence !== "here") this.#setPresence("here");
    this.#show(facts, isWhole);
  }

  /**
   * @param {any} facts
   * @param {boolean} isWhole
   */
  #show(facts, isWhole) {
    if (facts.about) this.about = isWhole ? facts.about : { ...this.about, ...facts.about };
    this.header.update();
    for (const section of this.#sections) {
      if (facts[section.key]) section.view.update(facts[section.key], isWhole);
    }
    if (facts.about) this.#refresh();
    else for (const section of this.#sections) section.showCount();
  }

  /** @param {string} presence */
  #setPresence(presence) {
    this.#presence = presence;
    this.header.update();
    this.#refresh();
  }

  #refresh() {
    for (const section of this.#sections) {
      section.view.refresh();
      section.showCount();
    }
  }

  #startClocks() {
    const { signal } = this.#ending;
    const clocks = [
      setInterval(() => !document.hidden && this.root.offsetParent && this.#refresh(), 1000),
      setInterval(() => void this.#keepPicture(), PICTURE_MS),
      setTimeout(() => this.#presence === "waiting" && this.#setPresence("still"), STILL_AFTER_MS),
    ];
    signal.addEventListener("abort", () => clocks.forEach((clock) => clearInterval(clock)));
  }

  /** What a saved notebook shows: the model remembers a picture, and the kernel hears nothing of it. */
  async #keepPicture() {
    if (!this.#isChanged || !this.isLive) return;
    this.#isChanged = false;
    try {
      this.model.set("_still", await this.link?.ask("picture"));
    } catch {
      // the picture before is good enough
    }
  }

  // ---- layout ----

  #addTabs() {
    this.body.setAttribute("role", "tabpanel");
    const tabs = (this.#tabs = new Tabs(this.#sections, this.body, (key) => this.#select(key)));
    this.body.before(tabs.element);
    tabs.select("overview");
    const observer = new ResizeObserver(([{ contentRect }]) => contentRect.width > 0 && tabs.setNarrow(contentRect.width < NARROW_PX));
    observer.observe(this.root);
    this.#ending.signal.addEventListener("abort", () => observer.disconnect());
  }

  /** @param {string} key */
  #select(key) {
    this.body.dataset.view = key;
    for (const section of this.#sections) {
      section.element.hidden = key === "overview" ? !OVERVIEW.includes(section.key) : section.key !== key;
    }
  }

  end() {
    this.#ending.abort();
    this.link?.end();
    for (const { view } of this.#sections) view.end();
    this.root.remove();
  }
}

/**
 * JupyterLab keeps the Enter key from submitting forms in outputs.
 * @param {KeyboardEvent} event
 */
function submitByEnter(event) {
  const { target, key, isComposing } = event;
  if (key !== "Enter" || isComposing || event.defaultPrevented) return;
  if (!(target instanceof HTMLInputElement) || !target.form) return;
  event.preventDefault();
  target.form.requestSubmit();
}

/** @param {{ model: import("./link.js").Model, el: HTMLElement }} where */
function render({ model, el }) {
  const view = new LiveView(model, el);
  return () => view.end();
}

export default { render };
