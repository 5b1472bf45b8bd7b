/**
 * A JSON value as a tree that can be edited in place.
 *
 * Keys: arrows move, Enter or F2 edits (or toggles a boolean, opens a branch), + adds, Delete removes, Escape gives
 * up an edit. What changes from outside is shown at once and glows for a moment; an open edit is left alone.
 * @module state-tree
 */
import { h, iconButton, looseValue, shortened } from "./dom.js";

/**
 * @typedef {object} StateTreeProps
 * @property {any} value Undefined: there is no state.
 * @property {boolean} [readonly]
 * @property {boolean} [fixedKeys] The keys of the root are given (a state typed by traits).
 * @property {"tree" | "text"} [mode] `text` edits the whole value as JSON.
 * @property {(value: any) => void} [onChange] Gets the whole next value.
 * @property {(path: Path, value: any) => Promise<void>} [onEdit] Gets the place and its next value instead; what it
 *   rejects with is shown at the place.
 * @property {(path: Path) => Promise<void>} [onRemove] The same for what is to go.
 * @property {(path: Path) => Rule | undefined} [ruleOf] What a place takes, and whether it may be changed.
 * @property {() => void} [onDone] The text editor was left.
 */

/** @typedef {Array<string | number>} Path */
/** @typedef {{ takes?: string, readonly?: boolean }} Rule */

const PAGE = 100; // children shown at once
const TEXT_LIMIT = 300;
const OPEN_DEPTH = 2; // branches above this depth start open

/**
 * @param {any} value
 * @returns {"object" | "array" | "string" | "number" | "boolean" | "null"}
 */
export function kindOf(value) {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return /** @type {any} */ (typeof value);
}

/**
 * The value with another one at `path`.
 * @param {any} value
 * @param {Path} path
 * @param {any} next
 * @returns {any}
 */
export function withValueAt(value, path, next) {
  if (path.length === 0) return next;
  const [key, ...rest] = path;
  const copy = Array.isArray(value) ? [...value] : { ...value };
  const child = withValueAt(copy[key], rest, next);
  return Object.defineProperty(copy, key, { value: child, writable: true, enumerable: true, configurable: true });
}

/**
 * The value without what is at `path`.
 * @param {any} value
 * @param {Path} path
 * @returns {any}
 */
export function withoutValueAt(value, path) {
  const parentPath = path.slice(0, -1);
  const key = path[path.length - 1];
  const parent = parentPath.reduce((node, step) => node[step], value);
  if (Array.isArray(parent)) {
    return withValueAt(
      value,
      parentPath,
      parent.filter((_, index) => index !== key),
    );
  }
  const { [key]: _removed, ...rest } = parent;
  return withValueAt(value, parentPath, rest);
}

/**
 * What an edited text means in the place of `before`. A text stays a text; the rest is read as JSON.
 * @param {string} text
 * @param {any} before
 * @returns {any}
 * @throws {SyntaxError} when it means nothing there.
 */
export function editedValue(text, before) {
  return typeof before === "string" ? text : JSON.parse(text);
}

/** @param {any} value */
function summary(value) {
  const size = Object.keys(value).length;
  if (Array.isArray(value)) return size === 0 ? "[ ]" : `[ ${size} ]`;
  return size === 0 ? "{ }" : `{ ${size} }`;
}

/**
 * Whether these children stand there already: moving an element would take the focus from it.
 * @param {Element[]} elements
 * @param {HTMLCollection} present
 */
function isSameList(elements, present) {
  return elements.length === present.length && elements.every((element, index) => element === present[index]);
}

/** One line of the tree and, for branches, the lines below it. */
class Row {
  /** @type {Map<string, Row>} */ #children = new Map();
  /** @type {any} */ value = undefined;
  #shown = PAGE;
  #isOpen;
  #isEditing = false;
  #can = "";
  #group = h("ul", { role: "group", class: "ja-tree-group" });
  #value = h("span", { class: "ja-value" });
  #twisty = h("span", { class: "ja-twisty", "aria-hidden": "true" });
  #actions = h("span", { class: "ja-row-actions" });
  #problem = h("span", { class: "ja-row-problem", role: "alert" });
  #line;

  /**
   * @param {Tree} tree
   * @param {Path} path
   */
  constructor(tree, path) {
    this.tree = tree;
    this.path = path;
    this.#isOpen = path.length < OPEN_DEPTH;
    const key = path.length === 0 ? null : h("span", { class: "ja-key" }, String(path[path.length - 1]));
    this.#line = h("div", { class: "ja-row" }, this.#twisty, key, this.#value, this.#problem, this.#actions);
    this.element = h("li", { role: "treeitem", tabindex: "-1", "aria-level": path.length + 1 }, this.#line);
    tree.rows.set(this.element, this);
    this.#line.addEventListener("click", (event) => this.#clicked(event));
  }

  get isBranch() {
    return typeof this.value === "object" && this.value !== null;
  }

  get isOpen() {
    return this.isBranch && this.#isOpen;
  }

  get children() {
    return [...this.#children.values()];
  }

  /** @returns {string} */
  get label() {
    return this.path.length === 0 ? "state" : this.path.join(".");
  }

  get isLocked() {
    return Boolean(this.tree.props.readonly || this.rule?.readonly);
  }

  get rule() {
    return this.tree.props.ruleOf?.(this.path);
  }

  /** Whether the user may add, remove or rename below this row. */
  get isGrowable() {
    return this.isBranch && !this.isLocked && !(this.tree.props.fixedKeys && this.path.length === 0);
  }

  get isRemovable() {
    return !this.isLocked && this.path.length > (this.tree.props.fixedKeys ? 1 : 0);
  }

  /**
   * @param {any} value
   * @param {boolean} [isNew]
   */
  update(value, isNew = false) {
    const isSameLeaf = !isNew && value === this.value;
    const wasBranch = this.isBranch;
    this.value = value;
    if (this.#isEditing) return;
    if (!isSameLeaf || this.isBranch) this.#showValue();
    if (!isNew && !isSameLeaf && !this.isBranch) this.#glow();
    if (!isSameLeaf) this.complain("");
    if (this.isBranch || wasBranch || isNew) this.#showChildren();
    this.#showActions();
  }

  #showValue() {
    const kind = kindOf(this.value);
    this.#value.className = `ja-value ja-${kind}`;
    const text = this.isBranch ? summary(this.value) : JSON.stringify(this.value);
    this.#value.textContent = shortened(text, TEXT_LIMIT);
    this.element.setAttribute("aria-label", `${this.label}: ${shortened(text, 80)}`);
    if (this.isBranch) this.element.setAttribute("aria-expanded", String(this.#isOpen));
    else this.element.removeAttribute("aria-expanded");
  }

  #showChildren() {
    const keys = this.isOpen ? this.#keys() : [];
    for (const [key, row] of this.#children) if (!keys.some((one) => String(one) === key)) this.#drop(key, row);
    const drafts = [...this.#group.children].filter((element) => element.classList.contains("ja-draft"));
    if (keys.length === 0 && drafts.length === 0) return this.#group.remove();
    const rows = keys.map((key) => this.#child(key));
    const rest = Object.keys(this.value).length - keys.length;
    const elements = rows.map((row) => row.element);
    const wanted = [...elements, ...(rest > 0 ? [this.#moreButton(rest)] : []), ...drafts];
    if (!isSameList(wanted, this.#group.children)) this.#group.replaceChildren(...wanted);
    if (!this.#group.isConnected || this.#group.parentElement !== this.element) this.element.append(this.#group);
    return undefined;
  }

  #keys() {
    const keys = Array.isArray(this.value) ? this.value.map((_, index) => index) : Object.keys(this.value);
    return keys.slice(0, this.#shown);
  }

  /**
   * @param {string} key
   * @param {Row} row
   */
  #drop(key, row) {
    this.tree.forget(row);
    this.#children.delete(key);
  }

  /** @param {string | number} key */
  #child(key) {
    const known = this.#children.get(String(key));
    const row = known ?? new Row(this.tree, [...this.path, key]);
    this.#children.set(String(key), row);
    row.update(this.value[key], known === undefined);
    return row;
  }

  /** @param {number} rest */
  #moreButton(rest) {
    const onclick = () => {
      this.#shown += PAGE;
      this.#showChildren();
    };
    const button = h(
      "button",
      { type: "button", class: "ja-link", onclick },
      `Show ${Math.min(PAGE, rest)} more of ${rest}`,
    );
    return h("li", { role: "none" }, button);
  }

  #showActions() {
    const can = `${this.isGrowable} ${this.isRemovable}`;
    if (can === this.#can) return;
    this.#can = can;
    const hidden = { tabindex: "-1" };
    this.#actions.replaceChildren(
      ...(this.isGrowable ? [iconButton("+", `Add to ${this.label}`, () => this.startAdding(), hidden)] : []),
      ...(this.isRemovable && this.path.length > 0
        ? [iconButton("×", `Remove ${this.label}`, () => this.remove(), hidden)]
        : []),
    );
  }

  /** @param {string} text Why the last edit here came to nothing. */
  complain(text) {
    if (this.#problem.textContent !== text) this.#problem.textContent = text;
  }

  #glow() {
    this.#value.classList.remove("ja-glow");
    void this.#value.offsetWidth; // starts the animation anew
    this.#value.classList.add("ja-glow");
  }

  /** @param {MouseEvent} event */
  #clicked(event) {
    const target = /** @type {Element} */ (event.target);
    if (target.closest("button, input")) return;
    this.tree.focus(this);
    if (this.isBranch) this.toggle();
    else if (target === this.#value) this.act();
  }

  /** @param {boolean} [open] */
  toggle(open = !this.#isOpen) {
    if (!this.isBranch) return;
    this.#isOpen = open;
    this.#showValue();
    this.#showChildren();
  }

  /** What Enter does. */
  act() {
    if (this.isBranch) this.toggle();
    else if (this.isLocked) return;
    else if (typeof this.value === "boolean") this.tree.change(this, this.path, !this.value);
    else this.startEditing();
  }

  startEditing() {
    if (this.isBranch || this.isLocked || this.#isEditing) return;
    this.#isEditing = true;
    this.complain("");
    const before = this.value;
    const text = typeof before === "string" ? before : JSON.stringify(before);
    const input = this.tree.field(`Value of ${this.label}`, text, {
      commit: (draft) => this.#commit(draft, text, before),
      end: () => this.#stopEditing(),
    });
    if (this.rule?.takes) input.title = this.rule.takes;
    this.#value.replaceChildren(input);
    input.focus();
    input.select();
  }

  /**
   * @param {string} draft
   * @param {string} text
   * @param {any} before
   */
  #commit(draft, text, before) {
    const next = editedValue(draft, before);
    this.#stopEditing();
    if (draft !== text) this.tree.change(this, this.path, next);
  }

  #stopEditing() {
    if (!this.#isEditing) return;
    this.#isEditing = false;
    this.#showValue();
    this.tree.focus(this);
  }

  startAdding() {
    if (!this.isGrowable) return;
    this.toggle(true);
    this.element.append(this.#group);
    const isList = Array.isArray(this.value);
    const end = () => {
      draft.remove();
      this.#showChildren();
      this.tree.focus(this);
    };
    const commit = () => {
      const key = isList ? this.value.length : keyField.value;
      if (!isList && (key === "" || Object.hasOwn(this.value, key))) throw new SyntaxError("a new key is needed");
      end();
      this.tree.change(this, [...this.path, key], looseValue(valueField.value));
    };
    const keyField = this.tree.field(`New key in ${this.label}`, "", { commit, end }, "key");
    const valueField = this.tree.field(`New value in ${this.label}`, "", { commit, end }, "value");
    const draft = h("li", { role: "none", class: "ja-row ja-draft" }, !isList && keyField, valueField);
    this.#group.append(draft);
    (isList ? valueField : keyField).focus();
  }

  remove() {
    if (this.isRemovable && this.path.length > 0) this.tree.remove(this);
  }
}

/** The rows as one widget: one tab stop, the arrows move within it. */
class Tree {
  #root;
  /** @type {Row} */ #current;
  /** @type {WeakMap<Element, Row>} */ rows = new WeakMap();
  element = h("ul", { role: "tree", class: "ja-tree", "aria-label": "State" });

  /** @param {StateTreeProps} props */
  constructor(props) {
    this.props = props;
    this.#root = new Row(this, []);
    this.#current = this.#root;
    this.#root.element.tabIndex = 0;
    this.element.append(this.#root.element);
    this.element.addEventListener("keydown", (event) => this.#keyPressed(event));
    this.element.addEventListener("focusin", ({ target }) => this.#focused(/** @type {Element} */ (target)));
    this.#root.update(props.value, true);
  }

  /** @param {StateTreeProps} props */
  update(props) {
    this.props = props;
    this.#root.update(props.value);
  }

  /**
   * @param {Row} row Where it was done.
   * @param {Path} path
   * @param {any} value
   */
  change(row, path, value) {
    const { onEdit, onChange } = this.props;
    if (onEdit) this.#settle(row, onEdit(path, value));
    else onChange?.(withValueAt(this.props.value, path, value));
  }

  /** @param {Row} row */
  remove(row) {
    const { onRemove, onChange } = this.props;
    this.#move(-1);
    if (onRemove) this.#settle(row, onRemove(row.path));
    else onChange?.(withoutValueAt(this.props.value, row.path));
  }

  /**
   * @param {Row} row
   * @param {Promise<void>} done
   */
  #settle(row, done) {
    row.complain("");
    done.catch((error) => row.complain(error instanceof Error ? error.message : String(error)));
  }

  /** @param {Row} row */
  focus(row) {
    this.#makeCurrent(row);
    row.element.focus();
  }

  /** @param {Element} target However the focus came here, it is where the keys work. */
  #focused(target) {
    const item = target.closest('[role="treeitem"]');
    const row = item && this.rows.get(item);
    if (row) this.#makeCurrent(row);
  }

  /** @param {Row} row */
  #makeCurrent(row) {
    this.#current.element.tabIndex = -1;
    this.#current = row;
    row.element.tabIndex = 0;
  }

  /** @param {Row} row A row that goes away must not take the only tab stop with it. */
  forget(row) {
    if (!row.element.contains(this.#current.element)) return;
    const hadFocus = row.element.contains(document.activeElement);
    this.#current = this.#root;
    this.#root.element.tabIndex = 0;
    if (hadFocus) this.#root.element.focus();
  }

  /**
   * A field that takes a value: Enter commits, Escape and leaving give up.
   * @param {string} label
   * @param {string} text
   * @param {{ commit: (draft: string) => void, end: () => void }} then
   * @param {string} [placeholder]
   */
  field(label, text, then, placeholder = "") {
    const input = h("input", { class: "ja-edit", "aria-label": label, placeholder, spellcheck: "false", value: text });
    const fit = () => (input.size = Math.min(60, Math.max(8, input.value.length + 1)));
    fit();
    input.addEventListener("input", () => {
      fit();
      input.removeAttribute("aria-invalid");
    });
    input.addEventListener("keydown", (event) => fieldKeyPressed(event, input, then));
    input.addEventListener("focusout", (event) => fieldLeft(event, then));
    return input;
  }

  /** @returns {Row[]} The visible rows from top to bottom. */
  #rows() {
    /** @type {(row: Row) => Row[]} */
    const below = (row) => [row, ...(row.isOpen ? row.children.flatMap(below) : [])];
    return below(this.#root);
  }

  /** @param {number} step */
  #move(step) {
    const rows = this.#rows();
    const index = Math.min(rows.length - 1, Math.max(0, rows.indexOf(this.#current) + step));
    this.focus(rows[index]);
  }

  /** @param {KeyboardEvent} event */
  #keyPressed(event) {
    if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey) return;
    const row = this.#current;
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowDown: () => this.#move(1),
      ArrowUp: () => this.#move(-1),
      ArrowRight: () => (row.isBranch && !row.isOpen ? row.toggle(true) : this.#move(row.isOpen ? 1 : 0)),
      ArrowLeft: () => (row.isOpen ? row.toggle(false) : this.#toParent(row)),
      Home: () => this.#move(-Infinity),
      End: () => this.#move(Infinity),
      Enter: () => row.act(),
      " ": () => row.act(),
      F2: () => row.startEditing(),
      "+": () => row.startAdding(),
      Insert: () => row.startAdding(),
      Delete: () => row.remove(),
    };
    const action = actions[event.key];
    if (!action || event.target instanceof HTMLButtonElement) return;
    event.preventDefault();
    action();
  }

  /** @param {Row} row */
  #toParent(row) {
    const isParent = (/** @type {Row} */ other) => row.path.length > 0 && other.children.includes(row);
    this.focus(this.#rows().find(isParent) ?? row);
  }
}

/**
 * @param {KeyboardEvent} event
 * @param {HTMLInputElement} input
 * @param {{ commit: (draft: string) => void, end: () => void }} then
 */
function fieldKeyPressed(event, input, then) {
  event.stopPropagation();
  if (event.key === "Escape") then.end();
  if (event.key !== "Enter") return;
  event.preventDefault();
  try {
    then.commit(input.value);
  } catch (error) {
    input.setAttribute("aria-invalid", "true");
    input.title = error instanceof Error ? error.message : String(error);
  }
}

/**
 * @param {FocusEvent} event
 * @param {{ end: () => void }} then
 */
function fieldLeft(event, then) {
  const input = /** @type {HTMLInputElement} */ (event.target);
  const next = /** @type {Element | null} */ (event.relatedTarget);
  const staysInRow = next?.closest(".ja-draft") === input.closest(".ja-draft") && input.closest(".ja-draft");
  if (!staysInRow && input.isConnected) queueMicrotask(() => then.end());
}

/**
 * The whole value as JSON text.
 * @param {StateTreeProps} props
 */
function textEditor(props) {
  const text = props.value === undefined ? "{}" : JSON.stringify(props.value, null, 2);
  const rows = Math.min(24, Math.max(4, text.split("\n").length + 1));
  const area = h("textarea", { class: "ja-code", rows, spellcheck: "false", "aria-label": "State as JSON" }, text);
  const problem = h("p", { class: "ja-problem", role: "alert" });
  const apply = () => {
    try {
      const next = JSON.parse(area.value);
      props.onDone?.();
      props.onChange?.(next);
    } catch (error) {
      problem.textContent = error instanceof Error ? error.message : String(error);
    }
  };
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) apply();
    if (event.key === "Escape") props.onDone?.();
  });
  const bar = h(
    "div",
    { class: "ja-bar" },
    h("button", { type: "button", class: "ja-button ja-primary", onclick: apply }, "Apply"),
    h("button", { type: "button", class: "ja-button", onclick: () => props.onDone?.() }, "Cancel"),
  );
  return h("div", { class: "ja-text-editor" }, area, problem, bar);
}

/**
 * Show a JSON value in `element`, to be edited there.
 * @param {HTMLElement} element
 * @param {StateTreeProps} props
 */
export function mountStateTree(element, props) {
  let current = { ...props };
  /** @type {Tree | null} */
  let tree = null;
  /** @type {string | null} */
  let shown = null;

  const show = () => {
    const what = current.mode === "text" ? "text" : current.value === undefined ? "nothing" : "tree";
    if (what === "tree" && shown === "tree") return tree?.update(current);
    if (what === "text" && shown === "text") return undefined; // a draft is left alone
    shown = what;
    tree = what === "tree" ? new Tree(current) : null;
    const content =
      tree?.element ?? (what === "text" ? textEditor(current) : h("p", { class: "ja-hint" }, "No state yet."));
    element.replaceChildren(content);
    if (what === "text") content.querySelector("textarea")?.focus();
    return undefined;
  };

  show();
  return {
    /** @param {Partial<StateTreeProps>} changes */
    update(changes) {
      current = { ...current, ...changes };
      show();
    },
    destroy() {
      element.replaceChildren();
    },
  };
}
