// Actions of the administrator: runs them, shows their result, and asks for their details in a dialog.

import { byId, h, setText } from './dom.mjs';

let refresh = () => {};

/** Calls `handler` after every action. */
export function onAction(handler) {
  refresh = handler;
}

/** Runs an action, and shows `message` or the error. */
export async function perform(action, message) {
  byId('notice').textContent = '';
  try {
    await action();
    byId('notice').textContent = message;
    byId('error').textContent = '';
  } catch (error) {
    byId('error').textContent = error.message;
  }
  refresh();
}

/**
 * Opens a dialog with `fields`; its submit button runs `action` with their values. An error is shown in the dialog, which then
 * stays open; after success `message` is shown on the page.
 */
export function openDialog({ title, text = '', fields = [], button, isDanger, action, message }) {
  const inputs = fields.map(({ name, label, options, ...attributes }) => {
    const input = options ? h('select', { id: `dialog-${name}` }, ...options.map(([value, optionText]) => h('option', { value }, optionText)))
      : h(attributes.rows ? 'textarea' : 'input', { id: `dialog-${name}`, ...attributes });
    return { name, label: h('label', { for: input.id }, label), input };
  });
  setText(byId('dialogTitle'), title);
  setText(byId('dialogText'), text);
  setText(byId('dialogSubmit'), button);
  byId('dialogSubmit').className = isDanger ? 'main danger' : 'main';
  byId('dialogError').textContent = '';
  byId('dialogFields').replaceChildren(...inputs.flatMap(({ label, input }) => [label, input]));
  byId('dialog').submitAction = async () => {
    try {
      await action(Object.fromEntries(inputs.map(({ name, input }) => [name, input.value])));
    } catch (error) {
      byId('dialogError').textContent = error.message;
      return;
    }
    closeDialog();
    perform(() => {}, message);
  };
  byId('dialog').showModal();
}

export function closeDialog() {
  if (byId('dialog').open) byId('dialog').close();
}

byId('dialog').addEventListener('submit', (event) => {
  event.preventDefault();
  byId('dialog').submitAction();
});
byId('dialogCancel').addEventListener('click', closeDialog);
