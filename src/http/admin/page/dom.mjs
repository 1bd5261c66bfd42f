// Creates and updates elements. Text is inserted as text: no function here parses HTML.

const SVG = 'http://www.w3.org/2000/svg';

export const byId = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

/** Creates an HTML element. It must not have a style attribute: the Content-Security-Policy of the page forbids it. */
export const h = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);

/** Creates an SVG element. */
export const s = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

/** Updates the children of `parent` to match `items`. A child that stays keeps its element, and with it the focus. */
export function syncChildren(parent, items, key, create, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const child = old.get(key(item)) ?? create();
    old.delete(key(item));
    child.dataset.key = key(item);
    child.item = item;
    update(child, item);
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
  });
  for (const child of old.values()) child.remove();
}

/** Sets a text only if it differs, so that a screen reader does not announce it again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Creates a function that creates a table row: a header cell, a cell for each of `columns`, and a cell of buttons. */
export const rowOf = (columns, ...buttons) => () => {
  const row = h('tr', {}, h('th', { scope: 'row' }, h('bdi')), ...columns.map((column) => h('td', { 'data-column': column }, h('bdi'))));
  if (buttons.length) row.append(h('td', {}, h('span', { class: 'buttons' }, ...buttons.map((create) => create(row)))));
  return row;
};

/** Creates a function that creates a button for a row; `action` gets the item of the row. */
export const rowButton = (text, action) => (row) => {
  const button = h('button', { type: 'button' }, text);
  button.addEventListener('click', () => action(row.item));
  return button;
};

export const setCells = (row, ...texts) => texts.forEach((text, index) => setText(row.children[index].firstChild, text ?? ''));

/** Shows `items` as badges; falsy items are left out. */
export function showBadges(list, items) {
  syncChildren(list, items.filter(Boolean), ({ key }) => key, () => h('li'), (li, { text, className = '' }) => {
    setText(li, text);
    li.className = className;
  });
}
