// Offers the names that this server suggests. Without it, a name can be typed.

const names = await (await fetch('/names')).json();
const form = document.getElementById('names');
for (const name of names) {
  const button = document.createElement('button');
  button.name = 'user';
  button.value = name;
  button.textContent = name;
  form.querySelector('.chips').append(button);
}
form.hidden = names.length === 0;
